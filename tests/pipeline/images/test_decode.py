"""Decoding of untrusted files to crops."""

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ImageError
from pipeline.images.decode import FORMATS, Decoded, decode

LIMIT = 1_000_000


def failure(data, max_pixels=LIMIT):
    with pytest.raises(ImageError) as error:
        decode(data, 32, max_pixels)
    return error.value.status, str(error.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(images, kind):
    decoded = decode(images.encoded(images.picture(1, 64, 64), kind), 32, LIMIT)
    assert (decoded.crop.shape, decoded.crop.dtype) == ((32, 32, 3), np.uint8)
    assert (decoded.width, decoded.height) == (64, 64)
    lossless = decode(images.encoded(images.picture(1, 64, 64), "PNG"), 32, LIMIT)
    assert np.abs(decoded.crop.astype(int) - lossless.crop).mean() < 12


def test_a_phones_multi_picture_jpeg_is_read(images):
    data = images.encoded(images.picture(1, 80, 60), "MPO", save_all=True, append_images=[images.picture(2, 80, 60)])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert decode(data, 32, LIMIT).width == 80


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"<!DOCTYPE html><title>404 Not Found</title>",
        b"\0" * 1000,
        b"%PDF-1.7\n",
        '{"é": 1}'.encode() * 100,
        b"II*\0",
        b"RIFF\0\0\0\0WAVE",
    ],
)
def test_what_is_no_image_is_called_so(data):
    status, message = failure(data)
    assert status in ("not_an_image", "corrupt") if data.startswith(b"II") else status == "not_an_image"
    assert message


def test_formats_that_would_run_other_programs_are_not_opened():
    assert failure(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")[0] == "not_an_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_that_is_cut_off_is_corrupt(images, kind):
    data = images.encoded(images.picture(1, 300, 200), kind)
    assert failure(data[: len(data) // 2])[0] == "corrupt"


def test_pixels_that_are_broken_are_corrupt(images):
    data = bytearray(images.encoded(images.picture(1, 300, 200), "PNG"))
    data[len(data) // 2 : len(data) // 2 + 50] = b"\xff" * 50
    assert failure(bytes(data))[0] == "corrupt"


def test_more_pixels_than_the_limit_are_not_decoded(images):
    data = images.encoded(images.picture(1, 80, 60), "PNG")
    assert failure(data, max_pixels=80 * 60 - 1) == ("too_large", "80 x 60 pixels, more than max_pixels = 4799")
    assert decode(data, 32, max_pixels=80 * 60).width == 80


@pytest.mark.parametrize("side", [2_000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(images, side):
    assert failure(images.png_that_claims(side, side))[0] == "too_large"


def test_a_bomb_within_an_icon_is_refused(images):
    bomb = images.png_that_claims(60_000, 60_000)
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(bomb), 22) + bomb
    assert failure(icon)[0] == "too_large"


def test_decoding_says_nothing_on_the_terminal(images, recwarn, capfd):
    decode(images.encoded(images.picture(1), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff of a broken camera"), 32, LIMIT)
    failure(images.png_that_claims(11_000, 9_000), max_pixels=10)
    assert list(recwarn) == []
    assert capfd.readouterr() == ("", "")


HOSTILE = """
import sys
from pipeline.images.decode import Decoded, decode
from pipeline.errors import STATUSES, ImageError

for path in sys.stdin.read().split("\\n"):
    print("begin", path, flush=True)
    try:
        decoded = decode(open(path, "rb").read(), 64, 10_000_000)
        assert isinstance(decoded, Decoded) and decoded.crop.shape == (64, 64, 3), path
        print("ok", flush=True)
    except ImageError as error:
        assert error.status in STATUSES and str(error), path
        print(error.status, flush=True)
"""


@pytest.mark.timeout(120)
def test_files_that_break_decoders_end_as_a_crop_or_as_an_image_error(shared_data):
    """In a separate process, so that a decoder that crashes fails this test and does not end the test run."""
    files = sorted(path for path in (shared_data / "hostile").rglob("*") if path.is_file())[::16]
    assert len(files) > 100
    paths = "\n".join(map(str, files))
    done = subprocess.run([sys.executable, "-c", HOSTILE], input=paths, capture_output=True, text=True, timeout=110, cwd=Path(os.sep))
    lines = done.stdout.splitlines()
    assert done.returncode == 0, (lines[-2:], done.stderr[-2000:])
    outcomes = lines[1::2]
    assert len(outcomes) == len(files)
    assert {"ok", "not_an_image", "corrupt"} <= set(outcomes)


def test_a_crop_is_what_the_model_package_makes_of_the_image(images):
    from ugrie.vision import preprocess

    picture = images.picture(3, 200, 90)
    decoded = decode(images.encoded(picture, "PNG"), 48, LIMIT)
    assert isinstance(decoded, Decoded)
    assert np.array_equal(decoded.crop, preprocess.crop(picture, 48))
