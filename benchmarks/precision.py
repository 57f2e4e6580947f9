"""Counts the labels that a precision of the image tower moves against fp32, and measures by how much probabilities differ.

    python benchmarks/precision.py --photos DIR

With `ugrie-tiny` and all its schemes, on the GPU if there is one. Precisions compute the same numbers on a CPU, but for the order of sums.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from measure import report
from PIL import Image

from ugrie import UGRIE
from ugrie.vision import preprocess
from ugrie.vision.encoder import Precision


def moved(crops: np.ndarray, device: str) -> dict[str, Any]:
    """Return for each precision how many labels it moves, and the largest and the mean difference of a probability."""
    found = {}
    for precision in get_args(Precision):
        if precision not in ("auto", "int8"):
            model = UGRIE.from_pretrained("ugrie-tiny", device, precision=precision)
            found[precision] = model.predict(torch.cat(list(model.encode(np.array_split(crops, -(-len(crops) // 64))))))
    exact = found.pop("fp32")
    results: dict[str, Any] = {"labels": len(crops) * len(exact.probs)}
    for precision, other in found.items():
        differences = [np.abs(other.probs[scheme] - exact.probs[scheme]) for scheme in exact.probs]
        results[precision] = {
            "moved": sum(int((other.choices[scheme] != exact.choices[scheme]).sum()) for scheme in exact.probs),
            "largest_difference": round(max(float(each.max()) for each in differences), 4),
            "mean_difference": round(float(np.mean([each.mean() for each in differences])), 5),
        }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    files = sorted(path for path in args.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    crops = np.stack([preprocess.crop(Image.open(file), 224) for file in files])
    report("precision", moved(crops, "cuda" if torch.cuda.is_available() else "cpu"), args.json)


if __name__ == "__main__":
    main()
