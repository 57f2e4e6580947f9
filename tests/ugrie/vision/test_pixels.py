"""Pixels of rare kinds are shown as a person sees them, and a large image in little more memory than it takes itself."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from ugrie.vision import pixels as module
from ugrie.vision.pixels import stored_size, upright
from ugrie.vision.preprocess import crop, to_rgb


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def saved(image: Image.Image, kind: str, **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return opened(buffer.getvalue())


def png(header: bytes, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a PNG: the header's fields after its size, rows with their filter bytes, and further chunks before them."""
    written = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in written)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bmp_of_four_channels(alpha: int, colour=(10, 20, 30)) -> bytes:
    """Write a BMP of version 4 whose masks name an alpha channel."""
    pixel = bytes([*colour[::-1], alpha])
    header = struct.pack("<IiiHHIIiiII4I", 108, 4, 4, 1, 32, 3, 64, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000).ljust(108, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + 108 + 64, 0, 0, 14 + 108) + header + pixel * 16


def test_a_fourth_channel_that_is_zero_everywhere_is_no_alpha():
    assert opened(bmp_of_four_channels(0)).mode == "RGBA"
    assert np.asarray(to_rgb(opened(bmp_of_four_channels(0))))[0, 0].tolist() == [10, 20, 30]
    half = np.asarray(to_rgb(opened(bmp_of_four_channels(128))))[0, 0]
    assert np.abs(half.astype(int) - (132, 137, 142)).max() <= 1


@pytest.mark.parametrize(("kind", "mode"), [("TGA", "RGBA"), ("TIFF", "RGBA"), ("TIFF", "LA"), ("JPEG2000", "RGBA"), ("TGA", "LA")])
def test_so_it_is_in_every_format_that_need_not_mean_alpha_by_it(kind, mode):
    image = saved(Image.new("RGBA", (8, 8), (50, 50, 50, 0)).convert(mode), kind)
    assert image.mode == mode
    assert np.abs(np.asarray(to_rgb(image)).astype(int) - 50).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_in_formats_whose_fourth_channel_is_alpha_clear_is_white(kind):
    assert np.asarray(to_rgb(saved(Image.new("RGBA", (8, 8), (50, 60, 70, 0)), kind))).min() == 255


@pytest.mark.parametrize(("key", "shown"), [((0x0001, 0, 0), [0, 0, 0]), ((0, 0, 0), [255, 255, 255]), ((0, 0x0100, 0), [0, 0, 0])])
def test_a_colour_key_of_16_bits_is_compared_with_all_of_them(key, shown):
    data = png(struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0), (b"\0" + bytes(24)) * 4, (b"tRNS", struct.pack(">3H", *key)))
    assert np.asarray(to_rgb(opened(data)))[1, 1].tolist() == shown


def test_a_colour_key_of_16_bits_hides_its_colour_alone(monkeypatch):
    row = struct.pack(">12H", *(0x1234, 0x5678, 0x9ABC), *(0x1234, 0x5678, 0x9ABD), 0, 0, 0, 257, 514, 771)
    data = png(struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0), (b"\0" + row) * 3, (b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)))
    monkeypatch.setattr(module, "STRIP_PIXELS", 4)
    assert np.asarray(to_rgb(opened(data)))[2].tolist() == [[255] * 3, [0x12, 0x56, 0x9A], [0] * 3, [1, 2, 3]]


def test_a_grey_key_of_16_bits_is_white():
    row = struct.pack(">2H", 0x0100, 0x0101)
    data = png(struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0), b"\0" + row, (b"tRNS", struct.pack(">H", 0x0100)))
    assert np.asarray(to_rgb(opened(data)))[0, :, 0].tolist() == [255, 1]


@pytest.mark.parametrize("strip", [2**20, 20])
def test_what_a_gifs_first_frame_does_not_cover_is_white(monkeypatch, strip):
    monkeypatch.setattr(module, "STRIP_PIXELS", strip)
    frame = Image.new("P", (6, 4), 1)
    frame.putpalette([0, 0, 255, 255, 0, 0])
    buffer = io.BytesIO()
    frame.save(buffer, "GIF")
    data = bytearray(buffer.getvalue())
    data[6:10] = struct.pack("<HH", 10, 8)  # the canvas
    at = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    data[at + 1 : at + 5] = struct.pack("<HH", 2, 3)  # where the frame lies on it
    shown = np.asarray(to_rgb(opened(bytes(data))))
    assert shown.shape == (8, 10, 3)
    inside = np.zeros((8, 10), bool)
    inside[3:7, 2:8] = True
    assert (shown[inside] == (255, 0, 0)).all()
    assert (shown[~inside] == 255).all()


def tiff(pixels: np.ndarray, **tags: int) -> Image.Image:
    """Write an uncompressed TIFF of one channel, whose kind of numbers the tags state, and open it."""
    fields = {256: pixels.shape[1], 257: pixels.shape[0], 258: 8 * pixels.itemsize, 259: 1, 262: 1, 273: 200, 277: 1, 278: pixels.shape[0]}
    fields |= {279: pixels.nbytes} | {getattr(TiffImagePlugin, name): value for name, value in tags.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    return opened((b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4)).ljust(200, b"\0") + pixels.tobytes())


def test_grey_of_32_bits_does_not_wrap():
    values = np.linspace(0, 2**32 - 1, 256).astype(np.uint32).reshape(16, 16)
    image = tiff(values)
    assert image.mode == "I"
    assert np.abs(np.asarray(to_rgb(image))[..., 0].ravel().astype(int) - np.arange(256)).max() <= 1


def test_signed_grey_of_32_bits_is_signed():
    values = np.array([[-(2**31), 0, 2**31 - 1]], np.int32)
    assert np.asarray(to_rgb(tiff(values, SAMPLEFORMAT=2)))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_deep_grey_whose_zero_is_white_is_no_negative(kind):
    values = np.array([[0, 65535]], kind)
    sample = {"SAMPLEFORMAT": 3} if kind == np.float32 else {}
    assert np.asarray(to_rgb(tiff(values, PHOTOMETRIC_INTERPRETATION=0, **sample)))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("turn", [1, 3, 6])
def test_a_tiffs_size_is_that_which_is_stored(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    image = saved(Image.new("RGB", (30, 20)), "TIFF", exif=exif)
    assert stored_size(image) == (30, 20)
    assert to_rgb(image).size == ((20, 30) if turn == 6 else (30, 20))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "L", "LA", "1", "P", "I;16", "F"])
def test_an_image_is_the_same_in_strips(monkeypatch, mode, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    noise = np.random.default_rng(0).integers(0, 255, (37, 23, 4), np.uint8)
    image = Image.fromarray(noise[..., 0]).convert(mode) if mode in ("F", "I;16") else Image.fromarray(noise, "RGBA").convert(mode)
    image.info["exif"] = exif.tobytes()
    whole = np.asarray(to_rgb(image))
    monkeypatch.setattr(module, "STRIP_PIXELS", 100)
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), whole)
    assert whole.shape == ((23, 37, 3) if turn > 4 else (37, 23, 3))


def test_an_upright_rgb_image_is_not_copied():
    image = Image.new("RGB", (8, 8))
    assert upright(image) is image


PEAK = """
import sys
from io import BytesIO
from PIL import Image
from ugrie.vision.preprocess import crop

def peak():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

crop(Image.new("RGB", (300, 300)), 224)
data = sys.stdin.buffer.read()
before = peak()
image = Image.open(BytesIO(data))
crop(image, 224)
print((peak() - before) / (image.width * image.height))
"""


@pytest.mark.parametrize(("mode", "bytes_per_pixel"), [("RGB", 4), ("RGBA", 8), ("P", 5), ("I;16", 3), ("L", 1)])
def test_a_large_image_takes_the_memory_of_itself_and_of_its_colours(mode, bytes_per_pixel):
    exif = Image.Exif()
    exif[0x0112] = 6 if mode == "RGBA" else 1
    buffer = io.BytesIO()
    Image.new(mode, (4200, 3900)).save(buffer, "PNG", compress_level=1, exif=exif)
    done = subprocess.run([sys.executable, "-c", PEAK], input=buffer.getvalue(), capture_output=True, check=True)
    assert float(done.stdout) < bytes_per_pixel + 3, "strips and buffers are some tens of megabytes"


def test_a_crop_of_grey_is_that_of_its_colours(pixels):
    grey = Image.fromarray(pixels(90, 70, channels=1))
    np.testing.assert_array_equal(crop(grey, 32), crop(grey.convert("RGB"), 32))
