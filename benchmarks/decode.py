"""Compares UGRIE's decoding and cropping, in which libjpeg scales while it decodes, with Pillow's decoding of all pixels.

    python benchmarks/decode.py --photos DIR

Uses the photos of a folder as they are, and enlarged to 12 megapixels as JPEG (quality 90). Both methods decode and crop every photo in
turn, in one process on one core. The crops are compared by pixels (PSNR) and by the labels that the model gives them. As a
baseline for labels that change by chance, Pillow's crops get the same differences added at random positions.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from measure import report
from PIL import Image

from ugrie import UGRIE
from ugrie.vision import preprocess

MEGAPIXELS = 12


def enlarged(file: Path, megapixels: float = MEGAPIXELS) -> bytes:
    """Return the photo as a JPEG of `megapixels` million pixels."""
    image = preprocess.to_rgb(Image.open(file))
    factor = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
    buffer = BytesIO()
    image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def by_pillow(data: bytes, size: int) -> np.ndarray:
    image = Image.open(BytesIO(data))
    image.load()
    return preprocess.crop(image, size)


def by_ours(data: bytes, size: int) -> np.ndarray:
    return preprocess.crop(Image.open(BytesIO(data)), size)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9)))


def noisy(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the first crop plus its differences to the other one, shuffled over positions and channels."""
    differences = rng.permutation((other.astype(int) - one).reshape(-1)).reshape(one.shape)
    return np.clip(one + differences, 0, 255).astype(np.uint8)


def measure(files: list[Path], model: UGRIE, megapixels: float | None) -> dict:
    size = model.config.tower.crop_size
    methods = {"pillow": by_pillow, "ours": by_ours}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    crops: dict[str, list[np.ndarray]] = {name: [] for name in methods}
    for file in files:
        data = file.read_bytes() if megapixels is None else enlarged(file, megapixels)
        for name, method in methods.items():
            clock = time.perf_counter()
            crops[name].append(method(data, size))
            seconds[name].append(time.perf_counter() - clock)
    noise = [psnr(one, other) for one, other in zip(*crops.values(), strict=True)]
    rng = np.random.default_rng(0)
    crops["by chance"] = [noisy(one, other, rng) for one, other in zip(crops["pillow"], crops["ours"], strict=True)]
    annotations = {name: model.annotate(each) for name, each in crops.items()}
    moved = {
        name: Counter(
            scheme
            for one, other in zip(annotations["pillow"], annotations[name], strict=True)
            for scheme in one.readings
            if one[scheme].label != other[scheme].label
        )
        for name in ("ours", "by chance")
    }
    medians = {name: 1000 * statistics.median(times) for name, times in seconds.items()}
    return {
        "photos": len(files),
        "milliseconds": {name: round(value, 2) for name, value in medians.items()},
        "times_pillow": round(medians["pillow"] / medians["ours"], 2),
        "psnr_least": round(min(noise), 1),
        "psnr_median": round(statistics.median(noise), 1),
        "labels_moved": {scheme: moved["ours"][scheme] for scheme in annotations["ours"][0].readings},
        "labels_moved_by_chance": {scheme: moved["by chance"][scheme] for scheme in annotations["ours"][0].readings},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--megapixels", type=float, default=MEGAPIXELS, help="size of the enlarged photos")
    parser.add_argument("--model", default="ugrie-tiny", help="the checkpoint that labels the crops")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    files = sorted(path for path in args.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    model = UGRIE.from_pretrained(args.model)
    sizes = {"as published": None, f"{args.megapixels:g} megapixels": args.megapixels}
    report("decode", {name: measure(files, model, megapixels) for name, megapixels in sizes.items()}, args.json)


if __name__ == "__main__":
    main()
