"""Simulate three nights of a growing corpus: each run annotates what is new, and the third night's report marks drift.

    python docs/examples/three_nights.py nights

Writes photos into FOLDER/images night by night, and runs jobs/annotate.py after each. The photos are random crops of those that
jobs/sample.py makes. The first night starts the corpus. By the second, more were posted, some of them again under another name, some were
replaced by another photo under the same name, and some broken files were repaired. On the third night a single photo is popular, in many
crops. Needs UGRIE's `demo` extra.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
POPULAR = "flower"  # the photo of the third night


@dataclass(frozen=True)
class Night:
    """The files that are written before a night. The run's counts should agree with them."""

    date: str
    new: int  # photos
    reposts: int  # copies of photos of the nights before, or of this one
    replaced: int  # earlier photos, replaced by others
    mended: int  # earlier broken files, replaced by photos
    broken: int  # new files that are not images
    has_popular: bool = False


NIGHTS = (
    Night("2026-11-21", new=160, reposts=8, replaced=0, mended=0, broken=6),
    Night("2026-11-22", new=80, reposts=24, replaced=10, mended=3, broken=4),
    Night("2026-11-23", new=120, reposts=12, replaced=5, mended=2, broken=2, has_popular=True),
)


class Corpus:
    """The growing folder of images."""

    def __init__(self, folder: Path, photos: list[Path], scale: float = 1.0):
        self.folder, self.photos, self.scale = folder, photos, scale
        self.draw = np.random.default_rng(0)
        self.names: list[str] = []
        self.broken: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)

    def grow(self, number: int, night: Night) -> dict[str, int]:
        """Write the files of a night. Return the counts that its run should have."""
        count = {name: round(self.scale * getattr(night, name)) for name in ("new", "reposts", "replaced", "mended", "broken")}
        for name in self.draw.choice(self.names, count["replaced"], replace=False) if self.names else ():
            (self.folder / name).write_bytes(self._cut(self.photos))
        mended = [self.broken.pop(0) for _ in range(count["mended"])]
        for name in mended:
            (self.folder / name).write_bytes(self._cut(self.photos))
        sources = [photo for photo in self.photos if photo.stem == POPULAR] if night.has_popular else self.photos
        fresh = [f"{number}-{i:04}.jpg" for i in range(count["new"])]
        for name in fresh:
            (self.folder / name).write_bytes(self._cut(sources))
        for i, name in enumerate(self.draw.choice([*self.names, *fresh], count["reposts"], replace=False)):
            (self.folder / f"{number}-again-{i:04}.jpg").write_bytes((self.folder / name).read_bytes())
        broken = [f"{number}-broken-{i:04}.jpg" for i in range(count["broken"])]
        for name in broken:
            (self.folder / name).write_text(f"<!DOCTYPE html><title>404: no {name}</title>")
        self.names += [*mended, *fresh, *(f"{number}-again-{i:04}.jpg" for i in range(count["reposts"]))]
        self.broken += broken
        rows = sum(count.values())
        listed = len(list(self.folder.iterdir()))
        return {"listed": listed, "known": listed - rows, "rows": rows, "failed": count["broken"], "reposts": count["reposts"]}

    def _cut(self, photos: list[Path]) -> bytes:
        image = Image.open(photos[self.draw.integers(len(photos))])
        width, height = (round(side * self.draw.uniform(0.3, 0.8)) for side in image.size)
        left, top = self.draw.integers(image.width - width), self.draw.integers(image.height - height)
        buffer = BytesIO()
        image.crop((left, top, left + width, top + height)).save(buffer, "JPEG", quality=88)
        return buffer.getvalue()


def counts_of(record: dict) -> dict[str, int]:
    """Return the same counts from a run's record."""
    counts = record["counts"]
    failed = counts["rows"] - counts["status"].get("ok", 0)
    return {**{name: counts[name] for name in ("listed", "known", "rows")}, "failed": failed, "reposts": sum(counts["reposts"].values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    subprocess.run([sys.executable, ROOT / "jobs" / "sample.py", folder / "photos"], check=True)
    corpus = Corpus(folder / "images", sorted(path for path in (folder / "photos").glob("*.jpg") if "_" not in path.stem))
    for number, night in enumerate(NIGHTS, 1):
        wanted = corpus.grow(number, night)
        command = [sys.executable, ROOT / "jobs" / "annotate.py", "--input", folder / "images", "--output", folder / "output"]
        subprocess.run([*command, "--date", night.date, "--run-id", f"night-{number}"], check=True)
        record = json.loads((folder / "output" / "runs" / f"night-{number}.json").read_text())
        print(f"\nnight {number} should have {wanted}\n         and has     {counts_of(record)}\n")


if __name__ == "__main__":
    main()
