"""Fuzzing of `pipeline.images.decode.decode`: small images of every format, broken in many ways, and arbitrary bytes."""

import struct
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

from hypothesis import strategies as st
from PIL import ImageCms

from tests.fuzz.inputs import mutated
from tests.plugins.corpus import encoded, picture

# sRGB with red and blue exchanged: a profile that changes every colour.
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PROFILE = PROFILE.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")
# Encoder options, chosen so that the seeds cover more of the decoders.
WRITTEN = [
    ("JPEG", "RGB", {"quality": 70}),
    ("JPEG", "L", {"progressive": True}),
    ("JPEG", "CMYK", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    ("PNG", "RGB", {"icc_profile": bytes(200)}),
    ("PNG", "RGB", {"icc_profile": PROFILE}),
    ("PNG", "P", {"icc_profile": PROFILE}),
    ("PNG", "LA", {"icc_profile": PROFILE}),
    ("JPEG", "RGB", {"icc_profile": PROFILE}),
    ("JPEG", "CMYK", {"icc_profile": PROFILE}),
    ("TIFF", "RGB", {"icc_profile": PROFILE}),
    ("TIFF", "LAB", {}),
    ("TIFF", "LA", {"exif": b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    ("PNG", "RGBA", {"optimize": True}),
    ("PNG", "P", {"bits": 4, "transparency": 0}),
    ("PNG", "I;16", {}),
    ("PNG", "1", {}),
    ("WEBP", "RGB", {"quality": 50}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("GIF", "P", {"interlace": 1}),
    ("GIF", "P", {"save_all": True, "transparency": 3}),
    ("BMP", "RGB", {}),
    ("BMP", "P", {}),
    ("BMP", "RGBA", {}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "L", {"compression": "tiff_deflate"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "CMYK", {"compression": "packbits"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "F", {}),
    ("TIFF", "I;16", {"big_tiff": True}),
    ("AVIF", "RGB", {"quality": 40}),
    ("AVIF", "RGBA", {"save_all": True}),
    ("JPEG2000", "RGB", {"tile_size": (16, 16)}),
    ("JPEG2000", "L", {"no_jp2": True}),
    ("JPEG2000", "RGBA", {"irreversible": True}),
    ("PPM", "RGB", {}),
    ("PPM", "L", {}),
    ("PPM", "1", {}),
    ("ICO", "RGBA", {"sizes": [(16, 16), (32, 32)]}),
    ("ICO", "RGBA", {"bitmap_format": "bmp", "sizes": [(16, 16)]}),
    ("TGA", "RGB", {"compression": "tga_rle"}),
    ("TGA", "P", {}),
    ("MPO", "RGB", {"save_all": True}),
]


def mended(data: bytes) -> bytes:
    """Return a PNG with the checksums of its chunks corrected, so that the chunks are read; other data unchanged."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        length = int.from_bytes(out[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def drawn(number, mode):
    if mode in ("F", "I;16"):
        return picture(number, 40, 30, "L").convert(mode)
    return picture(number, 40, 30, mode)


@cache
def seeds():
    out = []
    for number, (kind, mode, options) in enumerate(WRITTEN):
        more = {"append_images": [drawn(number + 1, mode)]} if "save_all" in options else {}
        out.append(encoded(drawn(number, mode), kind, **options, **more))
    jpeg, png = encoded(drawn(0, "RGB"), "JPEG"), encoded(drawn(0, "RGB"), "PNG")
    text = b"zTXtkey\0\0" + zlib.compress(bytes(1_500_000))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return [*out, jpeg[:-2], b"\n" + jpeg, png[:33] + chunk + png[33:]]


def test_bytes_are_an_image_or_an_image_error(explore):
    outcomes = explore("image", mutated(seeds(), mended) | st.binary(max_size=200), examples=250)
    assert outcomes.keys() == {"valid", "ImageError"}


def test_every_seed_is_an_image(doors):
    assert [doors.attempt("image", seed, {})[0] for seed in seeds()] == ["valid"] * len(seeds())


def test_files_that_break_decoders_are_an_image_or_an_image_error(doors, shared_data):
    """All hostile files; the decoder's own tests take one in 16."""
    outcomes = Counter()
    for path in sorted(path for path in Path(shared_data / "hostile").rglob("*") if path.is_file()):
        try:
            outcomes[doors.attempt("image", path.read_bytes(), {})[0]] += 1
        except AssertionError as error:
            error.add_note(f"The input is {path}")
            raise
    assert outcomes.keys() == {"valid", "ImageError"}
