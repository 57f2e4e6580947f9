"""Corpora for benchmarks: photos repeated as often as needed, each copy with bytes of its own."""

import struct
from pathlib import Path

from decode import enlarged


def jpegs(photos: Path, megapixels: float | None) -> list[bytes]:
    """Return the JPEG files of a folder, as they are or enlarged (then 64 at most)."""
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if megapixels is None:
        return [file.read_bytes() for file in files]
    return [enlarged(file, megapixels) for file in files[:64]]


def with_comment(jpeg: bytes, number: int) -> bytes:
    """Return the JPEG with a comment: different bytes, the same pixels."""
    comment = f"{number:08d}".encode()
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]


def corpus(sources: list[bytes], images: int, folder: Path) -> None:
    """Write a folder of `images` photos."""
    folder.mkdir()
    for number in range(images):
        (folder / f"{number:06d}.jpg").write_bytes(with_comment(sources[number % len(sources)], number))
