"""Write a sample corpus of 84 files: photos, crops of them, and four broken files.

The photos are those of scikit-image and scikit-learn; nothing is downloaded.
Needs UGRIE's demo extra.
"""

import struct
import zlib
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from PIL import Image

from pipeline.cli import command_app

PHOTOS = {
    "skimage.data": (
        "astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png", "grass.png",
        "gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}  # fmt: skip
CROPS = {"left": (0, 0.1, 0.6, 0.9), "right": (0.4, 0.1, 1, 0.9), "middle": (0.2, 0.2, 0.8, 0.8), "top": (0.1, 0, 0.9, 0.5)}

EXAMPLE = """\
python jobs/sample.py demo/images
ugrie annotate --input demo/images --output demo/output"""
app = command_app("sample", __doc__, EXAMPLE)


@app.default
def main(folder: Annotated[Path, Parameter(help="Folder that receives the images")]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for package, names in PHOTOS.items():
        for name in names:
            image = Image.open(BytesIO((files(package) / name).read_bytes())).convert("RGB")
            stem = Path(name).stem
            image.save(folder / f"{stem}.jpg", quality=90)
            for part, (left, top, right, bottom) in CROPS.items():
                width, height = image.size
                box = (round(left * width), round(top * height), round(right * width), round(bottom * height))
                image.crop(box).save(folder / f"{stem}_{part}.jpg", quality=90)
    for name, data in broken(folder / "china.jpg").items():
        (folder / name).write_bytes(data)
    print(f"{len(list(folder.iterdir()))} files in {folder}")


def broken(photo: Path) -> dict[str, bytes]:
    """Return broken files, such as every large corpus has, by name."""
    data = photo.read_bytes()
    return {
        "broken_empty.jpg": b"",
        "broken_cut_off.jpg": data[: len(data) // 3],
        "broken_page.jpg": b"<!DOCTYPE html><title>404 Not Found</title>",
        "broken_bomb.png": _png_header(60_000, 60_000),
    }


def _png_header(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header states an enormous size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


if __name__ == "__main__":
    app()
