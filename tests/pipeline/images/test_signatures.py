"""Files that are not read are named as what they are."""

import io
import struct
import sys
import zipfile

import pytest
from PIL import Image

from pipeline.errors import ImageError
from pipeline.images.decode import FORMATS, decode
from pipeline.images.signatures import is_heif, kind_of


def message(data: bytes) -> str:
    with pytest.raises(ImageError) as error:
        decode(data, 32, 1_000_000)
    assert error.value.status == "not_an_image"
    return str(error.value)


def box(brand: bytes, *compatible: bytes) -> bytes:
    body = brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", 8 + len(body)) + b"ftyp" + body + bytes(300)


def tiff(**tags) -> bytes:
    """Write a TIFF's first directory of numbers, without pixels."""
    entries = b"".join(struct.pack("<HHII", int(tag[1:]), 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def odd_tiff(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Write a TIFF's first directory of entries: tag, kind, count, and four bytes."""
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHI4s", *entry) for entry in entries) + bytes(4)


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.jpg", b"x")
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
NAMED = [
    (LFS, "Git LFS pointer, not the file itself: run git lfs pull"),
    (b"\n<!DOCTYPE html>\n<html><head><title>404</title>", "an HTML page"),
    (b"<HTML><body>Forbidden</body></HTML>", "an HTML page"),
    (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "an XML document"),
    (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg">', "an SVG drawing"),
    (b"<svg>", "an SVG drawing"),
    (b'{"error": "not found"}', "JSON text"),
    (b"%PDF-1.7\n", "a PDF document"),
    (archive(), "a zip archive"),
    (b"\x1f\x8b\x08\0", "gzip data"),
    (b"8BPS\0\1", "a Photoshop document"),
    (b"\xff\x0a\xfa\x7f", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "a JPEG XL image"),
    (box(b"isom", b"avc1"), "an MP4 video"),
    (box(b"mp42"), "an MP4 video"),
    (box(b"qt  "), "a QuickTime video"),
    (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1", "a WebM or Matroska video"),
    (b"RIFF\0\0\0\0AVI LIST", "an AVI video"),
    (box(b"crx ", b"isom"), "a Canon CR3 raw photo"),
    (b"II*\0\x10\0\0\0CR\2\0" + bytes(100), "a Canon CR2 raw photo"),
    (b"FUJIFILMCCD-RAW 0201", "a Fujifilm raw photo"),
    (tiff(t50706=1, t256=10), "a DNG raw photo"),
    (tiff(t258=64, t277=5, t339=3), "a TIFF of 5 x 64-bit floating-point samples"),
    (bytes(257) + b"ustar\0" + bytes(300), "a tar archive"),
    (b"PAR1\x15\x04", "a Parquet table"),
]


@pytest.mark.parametrize(("data", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_file_that_is_no_image_that_is_read_is_named(data, name):
    assert name in kind_of(data)
    assert name in message(data)


def test_a_jpeg_of_12_bits_is_named(images):
    whole = bytearray(images.jpeg(1))
    whole[whole.index(b"\xff\xc0") + 4] = 12
    assert "a JPEG of 12 bits a sample" in message(bytes(whole))


def test_a_tiff_of_floating_point_colours_is_named():
    assert "a TIFF of 3 x 32-bit floating-point samples" in message(tiff(t256=4, t257=4, t258=32, t262=2, t277=3, t339=3))


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"hevc"])
def test_a_heic_names_the_extra_that_reads_it(monkeypatch, brand):
    monkeypatch.setattr("pipeline.images.decode.HEIF", False)
    assert message(box(brand, b"heic")) == "a HEIC or HEIF image: install ugrie[heif]"


def test_a_heic_is_read_with_the_extra(images):
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = images.encoded(Image.new("RGB", (64, 48), (200, 30, 40)), "HEIF")
    assert is_heif(data)
    decoded = decode(data, 32, 1_000_000)
    assert (decoded.width, decoded.height) == (64, 48)
    assert abs(decoded.crop.astype(int) - (200, 30, 40)).max() <= 4


def test_a_heic_that_is_damaged_is_called_so():
    pytest.importorskip("pillow_heif")
    assert message(box(b"heic", b"mif1")) == "a HEIC or HEIF image that is damaged"


def test_an_avif_that_begins_as_heif_is_no_heic():
    assert not is_heif(box(b"mif1", b"avif", b"miaf"))


def test_the_extra_is_loaded_for_a_heic_alone(images):
    sys.modules.pop("pillow_heif", None)
    decode(images.jpeg(1), 32, 1_000_000)
    assert "pillow_heif" not in sys.modules


@pytest.mark.parametrize("kind", FORMATS)
def test_every_cut_of_an_image_has_a_name_or_none(images, kind):
    data = images.encoded(images.picture(1, 32, 32), kind)
    for end in range(0, min(len(data), 400), 7):
        assert kind_of(data[:end]) is None or isinstance(kind_of(data[:end]), str)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([(271, 3, 1, b"\xff\xff\0\0")], id="a maker of numbers over 255"),
        pytest.param([(271, 2, 4, b"NIKO"), (259, 3, 0, bytes(4))], id="a compression without a value"),
        pytest.param([(258, 3, 0, bytes(4)), (277, 3, 0, bytes(4)), (339, 3, 0, bytes(4))], id="samples without values"),
    ],
)
def test_tags_of_a_tiff_that_make_no_sense_are_no_errors(entries):
    assert message(odd_tiff(*entries)).startswith("a TIFF")


def test_whatever_a_signature_raises_the_file_is_no_image(monkeypatch):
    monkeypatch.setattr("pipeline.images.signatures.kind_of", lambda data: 1 / 0)
    assert message(b"what is this").startswith("12 bytes that are no JPEG")
