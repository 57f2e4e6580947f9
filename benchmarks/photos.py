"""Corpora for benchmarks: photos copied until there are enough, no two of the same bytes."""

import struct
from pathlib import Path

from decode import enlarged


def jpegs(photos: Path, megapixels: float | None) -> list[bytes]:
    """The folder's photos as JPEG files, in the size they have or enlarged."""
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    if megapixels is None:
        return [file.read_bytes() for file in files]
    return [enlarged(file, megapixels) for file in files[:64]]


def told_apart(jpeg: bytes, number: int) -> bytes:
    """The JPEG with a comment: other bytes, the same pixels."""
    comment = f"{number:08d}".encode()
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]


def corpus(sources: list[bytes], images: int, folder: Path) -> None:
    folder.mkdir()
    for number in range(images):
        (folder / f"{number:06d}.jpg").write_bytes(told_apart(sources[number % len(sources)], number))
