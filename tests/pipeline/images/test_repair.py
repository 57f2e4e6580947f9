"""Files whose pixels are whole are mended; those that lack pixels never are."""

import struct
import zlib

import numpy as np
import pytest

from pipeline.errors import ImageError
from pipeline.images.decode import decode
from pipeline.images.repair import repaired

LIMIT = 1_000_000
KINDS = [
    {},
    {"progressive": True},
    {"subsampling": 0},
    {"subsampling": 2, "restart_marker_rows": 1},
    {"mode": "L"},
    {"mode": "L", "progressive": True},
    {"mode": "CMYK"},
]


def jpeg(images, width=320, height=240, mode="RGB", **options) -> bytes:
    return images.encoded(images.picture(3, width, height, mode), "JPEG", **options)


def same(data: bytes, reference: bytes) -> bool:
    decoded, expected = decode(data, 32, LIMIT), decode(reference, 32, LIMIT)
    return np.array_equal(decoded.crop, expected.crop) and (decoded.width, decoded.height) == (expected.width, expected.height)


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_that_lacks_only_its_end_is_whole(images, options, missing):
    whole = jpeg(images, **options)
    assert same(whole[:-missing], whole)


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
def test_a_jpeg_that_lacks_pixels_is_corrupt(images, options, share):
    whole = jpeg(images, **options)
    with pytest.raises(ImageError, match="truncated") as error:
        decode(whole[: int(len(whole) * share)], 32, LIMIT)
    assert error.value.status == "corrupt"


def test_a_progressive_jpeg_that_lacks_whole_scans_is_corrupt(images):
    whole = jpeg(images, progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 3
    for begin in scans[1:]:
        before = max(whole.rfind(b"\xff\xc4", 0, begin), scans[scans.index(begin) - 1])  # with its tables
        cut = whole[: before if whole[before + 1] == 0xC4 else begin]
        assert list(repaired(cut)) == []


def test_of_a_jpeg_a_part_of_the_last_row_of_blocks_may_be_missing(images):
    assert decode(jpeg(images, quality=95)[:-60], 32, LIMIT).height == 240
    with pytest.raises(ImageError, match="truncated"):
        decode(jpeg(images, 64, 48, quality=95)[:-60], 32, LIMIT)  # of so small an image it would be much


def test_a_jpeg_without_pixels_is_corrupt(images):
    whole = jpeg(images)
    for cut in (whole[: whole.index(b"\xff\xda")], whole[: whole.index(b"\xff\xda") + 14], b"\xff\xd8\xff"):
        assert list(repaired(cut)) == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("before", [b"\n", b"\r\n\r\n ", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_white_space_before_an_image_is_passed_over(images, kind, before):
    whole = images.encoded(images.picture(1), kind)
    assert same(before + whole, whole)


def chunk(name: bytes, body: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ wrong)


LARGE = zlib.compress(bytes(1_500_000))
CHUNKS = {
    "large text": chunk(b"zTXt", b"key\0\0" + LARGE),
    "large international text": chunk(b"iTXt", b"key\0\1\0\0\0" + LARGE),
    "large profile": chunk(b"iCCP", b"icc\0\0" + LARGE),
    "wrong checksum": chunk(b"tEXt", b"key\0value", wrong=1),
    "wrong checksum of a profile": chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"x"), wrong=1),
    "unknown compression": chunk(b"zTXt", b"key\0\7" + LARGE),
    "profile of an unknown compression": chunk(b"iCCP", b"icc\0\7" + LARGE),
    "short gamma": chunk(b"gAMA", b"\0"),
    "short resolution": chunk(b"pHYs", b"\0"),
    "short chromaticities": chunk(b"cHRM", b"\0"),
    "short colour key": chunk(b"tRNS", b"\0"),
    "short animation": chunk(b"acTL", b"\0"),
    "wrong frame": chunk(b"fcTL", struct.pack(">7I", 5, 999, 999, 0, 0, 0, 0)),
    "text under the name of what Pillow notes": chunk(b"tEXt", b"transparency\0value"),
}


@pytest.mark.parametrize("kind", CHUNKS)
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_pngs_broken_or_large_metadata_cost_it_nothing(images, kind, place):
    whole = images.encoded(images.picture(1), "PNG")
    at = whole.index(b"IDAT" if place == "before" else b"IEND") - 4
    assert same(whole[:at] + CHUNKS[kind] + whole[at:], whole)


def test_a_png_with_broken_metadata_keeps_its_orientation_and_its_transparency(images):
    exif = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    whole = images.encoded(images.picture(1, 64, 40, "P"), "PNG", transparency=3, exif=exif)
    at = whole.index(b"IDAT") - 4
    assert same(whole[:at] + CHUNKS["wrong checksum"] + whole[at:], whole)


def test_a_png_whose_header_pixels_or_palette_are_broken_is_corrupt(images):
    whole = images.encoded(images.picture(1, 64, 40, "P"), "PNG")
    for name in (b"IHDR", b"PLTE"):
        at = whole.index(name)
        broken = whole[: at + 5] + bytes([whole[at + 5] ^ 1]) + whole[at + 6 :]
        with pytest.raises(ImageError):
            decode(broken, 32, LIMIT)
    with pytest.raises(ImageError, match=r"truncated|broken"):
        decode(whole[:-600], 32, LIMIT)


def test_nothing_else_is_mended(images):
    assert list(repaired(images.encoded(images.picture(1), "GIF")[:-20])) == []
    assert list(repaired(b"")) == []
    assert list(repaired(b"no image")) == []
