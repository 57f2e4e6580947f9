"""Synthetic images, and a small corpus with every kind of failure."""

import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def picture(seed: int, width: int = 96, height: int = 72, mode: str = "RGB") -> Image.Image:
    """Draw a picture of smooth coloured shapes, a different one for every seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    channels = [np.sin(x * rng.uniform(2, 20) + rng.uniform(0, 6)) + np.cos(y * rng.uniform(2, 20) + rng.uniform(0, 6)) for _ in range(3)]
    pixels = (np.stack(channels, -1) + 2) / 4 * 255
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header claims this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


class Images:
    """Makes images for tests: `picture` draws one, `encoded` returns the bytes of one, `jpeg` does both."""

    picture = staticmethod(picture)
    encoded = staticmethod(encoded)
    png_that_claims = staticmethod(png_that_claims)

    def jpeg(self, seed: int = 0, width: int = 96, height: int = 72) -> bytes:
        return encoded(picture(seed, width, height), "JPEG", quality=85)


@pytest.fixture(scope="session")
def images() -> Images:
    return Images()


@dataclass(frozen=True)
class Corpus:
    """A folder of images, and the status expected for each file's row, by file name."""

    folder: Path
    status: dict[str, str]

    @property
    def files(self) -> list[Path]:
        """All images of the corpus, in the order of a run."""
        return sorted((path for path in self.folder.rglob("*") if path.is_file() and path.name in self.status), key=str)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Corpus:
    """Write 40 files in three folders: 34 pictures in every supported format, and six that can't be annotated."""
    folder = tmp_path_factory.mktemp("corpus")
    content = {f"a/photo{i:02}.jpg": images.jpeg(i, 60 + 7 * i, 120 - 3 * i) for i in range(24)}
    for i, (name, kind, mode) in enumerate(
        [
            ("b/grey.jpg", "JPEG", "L"),
            ("b/cmyk.jpg", "JPEG", "CMYK"),
            ("b/clear.png", "PNG", "RGBA"),
            ("b/palette.png", "PNG", "P"),
            ("b/two.png", "PNG", "1"),
            ("b/photo.webp", "WEBP", "RGB"),
            ("b/photo.gif", "GIF", "P"),
            ("b/photo.bmp", "BMP", "RGB"),
            ("b/deep/photo.tiff", "TIFF", "RGB"),
            ("b/deep/photo.ppm", "PPM", "RGB"),
        ]
    ):
        content[name] = images.encoded(images.picture(100 + i, mode=mode), kind)
    broken = {
        "a/cut_off.jpg": (images.jpeg(7, 300, 200)[:2000], "corrupt"),
        "a/empty.jpg": (b"", "not_an_image"),
        "a/page.jpg": (b"<!DOCTYPE html><title>404 Not Found</title>", "not_an_image"),
        "b/bomb.png": (images.png_that_claims(60_000, 60_000), "too_large"),
        "b/notes": (b"what I saw that day\n", "not_an_image"),
        "b/drawing.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not_an_image"),
    }
    content |= {name: data for name, (data, _) in broken.items()}
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for hidden in ("a/.DS_Store", "_SUCCESS", "__MACOSX/sketch.jpg"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_bytes(images.jpeg(1))
    status = {Path(name).name: broken[name][1] if name in broken else "ok" for name in content}
    assert len(status) == len(content) == 40
    return Corpus(folder, status)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="session")
def tar() -> Callable[[Path, dict[str, bytes]], None]:
    return write_tar
