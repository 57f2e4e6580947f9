"""Measures the model on a GPU: the tower against the card's bf16 matrix-product peak, and the whole annotator against the tower.

    python benchmarks/gpu.py --json

Needs no Ray, no network and no weights (they are random). `annotator` is everything from uint8 crops in the host's memory to
probabilities in it: copies, normalisation, tower, mapper, BART, slots. Without a GPU the exit code is 2. `--device cpu --toy` runs
the same code with a tower of a few layers on a CPU.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from encoder import flops
from measure import report
from student import CLIP_DEVIATION, CLIP_MEAN, SCHEMES, VISION

from ugrie.schemes.scheme import load_scheme
from ugrie.training.recipe import Recipe
from ugrie.training.train import new_model
from ugrie.vision.config import TowerConfig
from ugrie.vision.encoder import Encoder

TOY = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}


def images_per_second(work: Callable[[int], object], device: str, batches: int, batch: int) -> float:
    """Return the best rate of three rounds of `work(batches)`, after one call to warm up and compile."""
    work(3)
    best = float("inf")
    for _ in range(3):
        if device == "cuda":
            torch.cuda.synchronize()
        clock = time.perf_counter()
        work(batches)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - clock)
    return batches * batch / best


def peak_flops(device: str, size: int) -> float:
    """Return the floating-point operations per second of a matrix product in bf16, on a CPU in float32."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = torch.randn(size, size, device=device, dtype=dtype), torch.randn(size, size, device=device, dtype=dtype)

    def work(times: int) -> None:
        for _ in range(times):
            a @ b

    return 2 * size**3 * images_per_second(work, device, 20, 1)


@torch.inference_mode()
def measure(vision: dict, device: str, batch: int, batches: int, peak: float) -> dict:
    size = vision["image_size"]
    torch.manual_seed(0)
    tower = TowerConfig(embedding_dim=512, crop_size=size, mean=CLIP_MEAN, deviation=CLIP_DEVIATION, vision_cfg=vision)
    model = new_model(Recipe(name="random", schemes=(), tower="lite0", data=()), [load_scheme(name) for name in SCHEMES], tower).eval()
    encoder = Encoder.bundled(tower)
    crops = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    an_image = flops(encoder, torch.from_numpy(crops[:1]))
    model.to(device)
    model.encoder = encoder.prepare(device, "auto")
    on_device = torch.from_numpy(crops).to(device)

    def only_tower(times: int) -> None:
        for _ in range(times):
            encoder(on_device)

    def annotator(times: int) -> None:
        for embeddings in model.encode(crops for _ in range(times)):
            model.predict(embeddings)

    tower_rate = images_per_second(only_tower, device, batches, batch)
    whole_rate = images_per_second(annotator, device, batches, batch)
    return {
        "batch": batch,
        "gflops_an_image": round(an_image / 1e9, 3),
        "tower_images_per_second": round(tower_rate, 1),
        "tower_share_of_peak": round(tower_rate * an_image / peak, 3),
        "annotator_images_per_second": round(whole_rate, 1),
        "annotator_time_of_tower": round(tower_rate / whole_rate, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="where the model runs")
    parser.add_argument("--toy", action="store_true", help="a tower of two layers, to try the script without a GPU")
    parser.add_argument("--batch", type=int, default=256, help="images in a batch")
    parser.add_argument("--batches", type=int, default=20, help="batches in a round")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("gpu: this machine has no GPU: run it on one that has, or try the script with --device cpu --toy", file=sys.stderr)
        sys.exit(2)
    peak = peak_flops(args.device, 512 if args.toy else 8192)
    towers = {"toy": TOY} if args.toy else {name: VISION[name] for name in ("ViT-B-32", "ViT-L-14")}
    results: dict = {"matmul_peak_tflops": round(peak / 1e12, 3)}
    for name, vision in towers.items():
        results[name] = measure(vision, args.device, args.batch, args.batches, peak)
    report("gpu", results, args.json)


if __name__ == "__main__":
    main()
