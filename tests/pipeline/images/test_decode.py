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

from pipeline.config import AnnotateConfig
from pipeline.errors import ImageError
from pipeline.images.decode import BYTES_PER_PIXEL, COSTLY, FORMATS, OUT_OF_MEMORY, Decoded, decode, identity

LIMIT = 1_000_000


def failure(data, max_pixels=LIMIT, memory=None):
    with pytest.raises(ImageError) as error:
        decode(data, 32, max_pixels, memory)
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


@pytest.mark.parametrize("kind", ["WEBP", "JPEG2000", "AVIF"])
def test_of_formats_that_take_more_memory_fewer_pixels_are_decoded(images, kind):
    data = images.encoded(images.picture(1, 80, 60), kind)
    most = COSTLY[kind] * 80 * 60 // BYTES_PER_PIXEL
    assert decode(data, 32, most).width == 80
    status, message = failure(data, most - BYTES_PER_PIXEL)
    assert (status, f"of {kind} at max_pixels" in message) == ("too_large", True)


def test_a_tiff_of_deep_samples_counts_by_its_bytes(images):
    rows = np.zeros((8, 8, 4), "<u2")
    fields = {256: 8, 257: 8, 259: 1, 262: 2, 273: 400, 277: 4, 278: 8, 279: rows.nbytes}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in fields.items()]
    entries.insert(2, struct.pack("<HHII", 258, 3, 4, 300))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    data = (head.ljust(300, b"\0") + struct.pack("<4H", 16, 16, 16, 16)).ljust(400, b"\0") + rows.tobytes()
    assert decode(data, 32, 96).width == 8
    assert failure(data, 95)[0] == "too_large"


PEAK = """
import sys
from pipeline.images.decode import decode

def peak():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

small, large = (open(path, "rb").read() for path in sys.argv[1:])
decode(small, 64, 10**8)
before = peak()
decode(large, 64, 10**8)
print(peak() - before)
"""


@pytest.mark.parametrize("kind", [*COSTLY, "PNG", "TIFF", "GIF", "BMP"])
def test_decoding_takes_the_memory_that_is_counted_for_its_pixels(images, kind, tmp_path):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    options = {"TIFF": {"compression": "tiff_lzw", "strip_size": 2**30}, "WEBP": {"method": 0}, "AVIF": {"speed": 10}}.get(kind, {})
    mode = "P" if kind == "GIF" else "RGBA"
    for side in (40, 2400):
        (tmp_path / str(side)).write_bytes(images.encoded(Image.new(mode, (side, side), 7), kind, **options))
    command = [sys.executable, "-c", PEAK, tmp_path / "40", tmp_path / "2400"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    buffers = 80e6 if kind == "AVIF" else 30e6  # whatever the image's size; strips among them
    assert float(done.stdout) < COSTLY.get(kind, BYTES_PER_PIXEL) * 2400**2 + buffers


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError("out of memory error when reading image file"),
        OSError("decoder error -9"),
        RuntimeError("Memory allocation error: 123"),
        ValueError("Insufficient memory (case 4)"),
    ],
    ids=str,
)
def test_a_decoder_without_memory_is_too_large_however_it_says_so(images, monkeypatch, error):
    def crop(image, size):
        raise error

    monkeypatch.setattr("pipeline.images.decode.preprocess.crop", crop)
    assert failure(images.jpeg(1)) == ("too_large", OUT_OF_MEMORY)


def test_what_may_be_a_lack_of_memory_is_not_called_damage(images):
    """libjpeg reports either as a broken data stream."""
    cut = images.jpeg(1, 300, 200)[:2000]
    assert failure(cut)[0] == "corrupt"
    assert failure(cut, memory=400_000) == ("too_large", OUT_OF_MEMORY)
    assert failure(cut, memory=2**44)[0] == "corrupt"


def test_another_limit_or_version_is_another_decoder(monkeypatch, tmp_path):
    config = AnnotateConfig(input=str(tmp_path), output=str(tmp_path / "out"))
    changed = [config.model_copy(update=change) for change in ({"max_pixels": 7}, {"decode_timeout": 7}, {"decode_memory": 7})]
    names = {identity(each) for each in [config, *changed]}
    monkeypatch.setattr("pipeline.images.decode.version", lambda package: "99")
    assert len(names | {identity(config)}) == 5
