"""Measures images per second from files to labels in one process, and the shares of decoding and of the tower.

    python benchmarks/annotate.py --photos DIR

Runs `UGRIE.annotate` on all cores, as users call it: files are read, decoded and cropped one after another, then embedded and labelled
in all the checkpoint's schemes. Each round times the whole, decoding alone and the tower alone; results are medians over the rounds.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from measure import medians, report
from PIL import Image

from ugrie import UGRIE
from ugrie.vision import preprocess


def measure(model: UGRIE, files: list[Path], repeats: int) -> dict[str, float]:
    size = model.config.tower.crop_size

    def decode() -> np.ndarray:
        return np.stack([preprocess.crop(Image.open(file), size) for file in files])

    crops = decode()
    batches = [crops[start : start + 32] for start in range(0, len(crops), 32)]
    seconds = medians(
        {
            "all": lambda: model.annotate(files),
            "decoding": decode,
            "tower": lambda: list(model.encode(batches)),
        },
        repeats,
    )
    return {
        "images": len(files),
        "images_per_second": round(len(files) / seconds["all"], 1),
        "share_of_decoding": round(seconds["decoding"] / seconds["all"], 3),
        "share_of_tower": round(seconds["tower"] / seconds["all"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of images")
    parser.add_argument("--model", default="ugrie-tiny", help="the checkpoint")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    files = sorted(path for path in args.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    results = measure(UGRIE.from_pretrained(args.model), files, args.repeats)
    report(f"annotate-{Path(args.model).name}", results, args.json)


if __name__ == "__main__":
    main()
