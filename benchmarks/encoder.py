"""Measures the image tower's speed by precision and setting, as a share of this machine's matrix-product peak.

    python benchmarks/encoder.py --json
    python benchmarks/encoder.py --photos DIR     # also count the labels that int8 changes on real photos

Weights are random, except EfficientNet-Lite2's, which its package brings: speed does not depend on them. Changed labels do. They are
counted with a model that is trained on half of the photos (benchmarks/student.py) and labels the other half by fp32 and by int8
embeddings. A batch is run as UGRIE runs it: in parts, one for each core, whose size is tuned for each setting.
"""

import argparse
import copy
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from measure import machine, medians, save
from PIL import Image
from student import VISION, labelled, student, vit
from torch.utils.flop_counter import FlopCounterMode

from ugrie.vision import preprocess
from ugrie.vision.batch_size import best_batch_size
from ugrie.vision.encoder import Encoder
from ugrie.vision.lite2 import lite2

WHOLE = "fp32, a whole batch at once, all cores on each layer"  # PyTorch's default


def peak_flops(size: int = 2048) -> float:
    """Return the floating-point operations per second of a float32 matrix product, the best of twenty."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / min(medians({"": lambda: a @ b}, 1)[""] for _ in range(20))


def flops(encoder: Encoder, crops: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        encoder(crops)
    return counter.get_total_flops()


@torch.inference_mode()
def measure(name: str, batch: int, repeats: int) -> dict:
    base = lite2().eval() if name == "lite2" else vit(name)
    crops = torch.randint(0, 256, (batch, 224, 224, 3), dtype=torch.uint8)
    work, peak = flops(base, crops), peak_flops()
    settings: dict[str, Callable[[Encoder], Encoder]] = {
        "fp32": lambda e: e,
        "fp32, channels last": lambda e: e.prepare("cpu", "fp32"),
        "fp32, channels last, compiled": lambda e: compiled(e.prepare("cpu", "fp32")),
        "bf16": lambda e: e.prepare("cpu", "bf16"),
    }
    if name != "lite2":
        settings["int8"] = lambda e: e.prepare("cpu", "int8")
    encoders = {label: make(copy.deepcopy(base)) for label, make in settings.items()}
    for encoder in encoders.values():
        encoder.batch_size = best_batch_size(encoder)
    pixels = crops.numpy()
    contenders: dict[str, Callable[[], object]] = {WHOLE: lambda: base(crops)}
    contenders |= {label: lambda encoder=encoder: list(encoder.stream([pixels])) for label, encoder in encoders.items()}
    seconds = medians(contenders, repeats)
    peak = max(peak, peak_flops())  # measured before and after, since the machine's speed varies
    exact = base(crops)

    def quality(encoder: Encoder, at_once: int) -> dict:
        return {"at_once": at_once, "least_cosine": round(float(torch.cosine_similarity(encoder(crops), exact).min()), 5)}

    return {
        "batch": batch,
        "matmul_peak_gflops": round(peak / 1e9, 1),
        "gflops_an_image": round(work / batch / 1e9, 3),
        "settings": {
            label: {
                "images_per_second": round(batch / value, 2),
                "times_fp32": round(seconds["fp32"] / value, 3),
                "share_of_peak": round(work / value / peak, 3),
                **quality(encoders.get(label, base), batch if label == WHOLE else encoders[label].batch_size),
            }
            for label, value in seconds.items()
        },
    }


def compiled(encoder: Encoder) -> Encoder:
    encoder.embed = torch.compile(encoder.embed, dynamic=False)  # type: ignore[method-assign]
    return encoder


def moved_labels(folder: Path) -> dict:
    """Count the labels that int8 changes against fp32, by scheme, on the photos of a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    crops = np.stack([preprocess.crop(Image.open(file), 224) for file in files])
    batches = [crops[i : i + 32] for i in range(0, len(crops), 32)]
    with torch.inference_mode():
        exact, quantized = vit("ViT-B-32"), vit("ViT-B-32").prepare("cpu", "int8")
        one, other = (torch.cat(list(encoder.stream(batches))) for encoder in (exact, quantized))
    data = labelled(one.numpy())
    rows = np.arange(len(files))
    moved = Counter[str]()
    first = {name: np.zeros(len(files), np.int64) for name in data.targets}
    for half in (0, 1):
        model = student(data.take(rows[rows % 2 != half]), exact.config, seed=half)
        held_out = rows[rows % 2 == half]
        by_exact, by_quantized = (model.predict(embeddings[held_out]).choices for embeddings in (one, other))
        for name in first:
            first[name][held_out] = by_exact[name]
            moved[name] += int((by_exact[name] != by_quantized[name]).sum())
    given = {name: np.bincount(choices)[np.bincount(choices) > 0].tolist() for name, choices in first.items()}
    return {
        "photos": len(files),
        "least_cosine": round(float(torch.cosine_similarity(one, other).min()), 5),
        "photos_by_label_given": given,
        "moved": dict(moved),
        "share": round(sum(moved.values()) / len(files) / len(moved), 4),
    }


def table(results: dict) -> str:
    lines = []
    for name, result in results.items():
        if "settings" not in result:
            lines.append(f"\n{name}: {result}")
            continue
        size, peak = result["gflops_an_image"], result["matmul_peak_gflops"]
        lines.append(f"\n{name}, batch {result['batch']}: {size} GFLOP an image, matmul peak {peak} GFLOP/s")
        for label, row in result["settings"].items():
            lines.append(
                f"  {label:54}{row['images_per_second']:>9.1f} images/s {row['times_fp32']:>6.2f}x fp32"
                f"{row['share_of_peak']:>8.0%} of peak   cosine {row['least_cosine']}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tower", choices=["lite2", *VISION], action="append", help="repeat it for several; lite2 and ViT-B-32 by default")
    parser.add_argument("--batch", type=int, default=32, help="images in a batch")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--photos", type=Path, help="a folder of photos, to count the labels that int8 changes")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    results = {name: measure(name, args.batch, args.repeats) for name in args.tower or ("lite2", "ViT-B-32")}
    if args.photos:
        results["int8 on photos"] = moved_labels(args.photos)
    if args.json:
        print(json.dumps({"machine": machine(), "results": results}, indent=1))
    else:
        print(table(results))
        print(f"\nwritten to {save('encoder', results).name}")


if __name__ == "__main__":
    main()
