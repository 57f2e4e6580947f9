"""Measures the model on a GPU, in one command.

    python benchmarks/gpu.py [--photos DIR]

Needs a GPU, PyTorch, open_clip, timm, pydantic, tokenizers and Pillow; no Ray, no network and no weights (they are random, but for
`ugrie-tiny`). It measures

- the card's peak: the rate of a large matrix product in each precision;
- the towers of CLIP ViT-B/32 and ViT-L/14, uncompiled by precision and batch, compiled as UGRIE does, and compiled with kernels chosen by
  timing (which UGRIE does not, because processes would then differ);
- the annotator with ViT-L/14, as an actor calls it: two threads, blocks of many sizes, from crops in the host's memory to probabilities in
  it; the graphs that were compiled (one), and two such processes on the card at once;
- the way from encoded JPEGs in memory with one thread for each core, and how many cores would keep the card busy;
- the labels that each precision moves, by `ugrie-tiny` on photos (`--photos`, else on generated images);
- what nvidia-smi says meanwhile: use, power, clock and memory.

Without a GPU the exit code is 2. `--device cpu --toy` runs the same code with a tower of two layers on a CPU.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
import torch._dynamo.utils
from encoder import flops
from measure import report
from PIL import Image
from precision import moved
from student import CLIP_DEVIATION, CLIP_MEAN, SCHEMES, VISION

from ugrie import UGRIE
from ugrie.schemes.scheme import load_scheme
from ugrie.training.recipe import Recipe
from ugrie.training.train import new_model
from ugrie.vision import preprocess
from ugrie.vision.config import TowerConfig
from ugrie.vision.encoder import Encoder

TOY = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BLOCK = 256  # images of a block
PARTS_OF_A_BLOCK = (1.0, 0.7, 0.99, 0.004, 1.0, 0.5)  # that are left after failures and reposts
QUERY = "utilization.gpu,power.draw,clocks.sm,memory.used"


class Bench:
    """The device, and how long to measure."""

    def __init__(self, device: str, toy: bool):
        self.device, self.toy = device, toy
        self.seconds = 0.2 if toy else 4.0
        self.block = 8 if toy else BLOCK
        self.batches = (2, 4) if toy else (64, 256, 512)
        self.towers = {"toy": TOY} if toy else {name: VISION[name] for name in ("ViT-B-32", "ViT-L-14")}
        self.largest = list(self.towers)[-1]
        self.precisions = ("fp32", "bf16") if device == "cpu" else tuple(DTYPES)

    def sync(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def rate(self, work: Callable[[], object], images: int) -> float:
        """Return the images per second of `work`, which does `images` of them, after two calls to warm up."""
        work()
        work()
        self.sync()
        calls, clock = 0, time.perf_counter()
        while time.perf_counter() - clock < self.seconds:
            work()
            calls += 1
        self.sync()
        return calls * images / (time.perf_counter() - clock)

    def crops(self, count: int, size: int) -> np.ndarray:
        return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), dtype=np.uint8)

    def forget(self) -> None:
        """Drop what was compiled, of which PyTorch keeps eight of a function, and the memory of earlier models."""
        torch._dynamo.reset()
        gc.collect()
        self.memory_mib()

    def memory_mib(self) -> float | None:
        """Return the most memory that PyTorch took since the last call."""
        if self.device == "cpu":
            return None
        most = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return round(most)


def peaks(bench: Bench) -> dict[str, float]:
    """Return the floating-point operations per second of a matrix product, by precision, in units of 1e12."""
    size, found = 512 if bench.toy else 8192, {}
    for name in bench.precisions:
        a, b = (torch.randn(size, size, device=bench.device).to(DTYPES[name]) for _ in range(2))
        found[name] = 2 * size**3 * bench.rate(lambda a=a, b=b: a @ b, 1) / 1e12
    return found


def encoder_of(vision: dict, device: str, precision: str) -> Encoder:
    torch.manual_seed(0)
    tower = TowerConfig(embedding_dim=512, crop_size=vision["image_size"], mean=CLIP_MEAN, deviation=CLIP_DEVIATION, vision_cfg=vision)
    return Encoder.bundled(tower).prepare(device, precision)


@torch.inference_mode()
def tower(bench: Bench, vision: dict, peak: dict[str, float]) -> dict[str, Any]:
    """Measure a tower on crops that lie in the GPU's memory."""
    size = vision["image_size"]
    an_image = flops(encoder_of(vision, "cpu", "fp32"), torch.from_numpy(bench.crops(1, size)))
    found: dict[str, Any] = {"gflops_an_image": round(an_image / 1e9, 3), "uncompiled": {}, "compiled": {}}

    def row(embed: Callable[[torch.Tensor], torch.Tensor], precision: str, batch: int) -> dict[str, Any]:
        crops = torch.from_numpy(bench.crops(batch, size)).to(bench.device)
        clock = time.perf_counter()
        embed(crops)
        bench.sync()
        first = time.perf_counter() - clock
        rate = bench.rate(lambda: embed(crops), batch)
        share = rate * an_image / 1e12 / peak[precision]
        numbers = {"images_per_second": round(rate, 1), "share_of_peak": round(share, 3), "first_call_seconds": round(first, 1)}
        return numbers | {"memory_mib": bench.memory_mib()}

    for precision in bench.precisions:
        bench.forget()
        encoder = encoder_of(vision, bench.device, precision)
        for batch in bench.batches if precision != "fp32" else bench.batches[:2]:
            found["uncompiled"][f"{precision}, {batch}"] = row(encoder.embed, precision, batch)
    for precision in bench.precisions[1:]:
        bench.forget()
        encoder = encoder_of(vision, bench.device, precision)
        batch = bench.batches[1]
        if encoder.gpu is not None:
            found["compiled"][f"{precision}, {batch}"] = row(encoder.gpu.embed, precision, batch)
            bench.forget()
            timed = torch.compile(encoder.embed, mode="max-autotune-no-cudagraphs", dynamic=False)
            found["compiled"][f"{precision}, {batch}, kernels by timing"] = row(timed, precision, batch)
    return found


def random_model(bench: Bench) -> UGRIE:
    """Return a model of random weights with the largest tower, loaded as an actor loads it."""
    bench.forget()
    encoder = encoder_of(bench.towers[bench.largest], "cpu", "fp32")
    recipe = Recipe(name="random", schemes=(), tower="lite2", data=())
    made = new_model(recipe, [load_scheme(name) for name in SCHEMES], encoder.config)
    made.encoder = encoder
    with tempfile.TemporaryDirectory(prefix="ugrie-gpu-") as folder:
        made.save_pretrained(folder, "of random weights")
        model = UGRIE.from_pretrained(folder, bench.device)
    model.load_encoder().batch_size = bench.batches[1]
    model.load_encoder().warm_up()
    return model


class Actor:
    """Annotates blocks as `pipeline.stages.annotate.Annotator` does: two threads, of which one has the device."""

    def __init__(self, model: UGRIE):
        self.model, self.device = model, threading.Lock()
        self.locked = 0.0

    def __call__(self, crops: np.ndarray) -> int:
        uploaded = self.model.load_encoder().upload(crops)
        with self.device:
            clock = time.perf_counter()
            found = [(encoded.cpu().numpy(), self.model.predict(encoded)) for encoded in self.model.encode([uploaded])]
            self.locked += time.perf_counter() - clock
        return sum(len(prediction.sentences()) for _, prediction in found)

    def all(self, blocks: list[np.ndarray]) -> int:
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(self, blocks))


def annotator(bench: Bench) -> dict[str, Any]:
    """Measure an actor with the largest tower, from crops to sentences."""
    torch._dynamo.utils.counters.clear()
    model = random_model(bench)
    encoder = model.load_encoder()
    size = model.config.tower.crop_size
    blocks = [bench.crops(max(1, round(share * bench.block)), size) for share in PARTS_OF_A_BLOCK]
    actor, images = Actor(model), sum(map(len, blocks))
    whole = [bench.crops(bench.block, size)] * 4
    actor.all(blocks)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    if graphs != (encoder.gpu is not None):
        raise RuntimeError(f"the tower has {graphs} graphs, and should have one")
    on_device = torch.from_numpy(bench.crops(encoder.batch_size, size)).to(bench.device)
    with torch.inference_mode():
        tower_rate = bench.rate(lambda: (encoder.gpu.embed if encoder.gpu else encoder.embed)(on_device), encoder.batch_size)
    rate, odd = bench.rate(lambda: actor.all(whole), 4 * bench.block), bench.rate(lambda: actor.all(blocks), images)
    actor.locked, clock = 0.0, time.perf_counter()
    actor.all(whole)
    return {
        "batch": encoder.batch_size,
        "graphs": graphs,
        "tower_images_per_second": round(tower_rate, 1),
        "images_per_second": round(rate, 1),
        "time_of_the_towers": round(tower_rate / rate, 3),
        "images_per_second_of_blocks_of_many_sizes": round(odd, 1),
        "share_of_the_time_with_the_device": round(actor.locked / (time.perf_counter() - clock), 3),
        "memory_mib": bench.memory_mib(),
    }


def images_of(folder: Path | None, toy: bool) -> list[bytes]:
    """Return encoded photos: those of a folder, or generated ones of 500 x 375 pixels."""
    if folder is not None:
        return [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg")]
    made = []
    for seed in range(8 if toy else 64):
        coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        buffer = BytesIO()
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def from_jpegs(bench: Bench, photos: list[bytes]) -> dict[str, Any]:
    """Measure the way from JPEGs to sentences: as many threads as there are cores decode, an actor annotates."""
    model = random_model(bench)
    size, cores = model.config.tower.crop_size, os.cpu_count() or 1
    actor = Actor(model)
    some = [photos[i % len(photos)] for i in range(bench.block)]

    def decode(data: bytes) -> np.ndarray:
        return preprocess.crop(Image.open(BytesIO(data)), size)

    with ThreadPoolExecutor(cores) as decoders:

        def block(_: int) -> np.ndarray:
            return np.stack(list(decoders.map(decode, some)))

        def work() -> None:
            with ThreadPoolExecutor(3) as ahead:  # as blocks that are loaded wait before an annotator
                actor.all(list(ahead.map(block, range(4))))

        decoding, rate = bench.rate(lambda: block(0), bench.block), bench.rate(work, 4 * bench.block)
    clock = time.thread_time()
    for data in some:
        decode(data)
    a_core = bench.block / (time.thread_time() - clock)
    alone = bench.rate(lambda: actor.all([bench.crops(bench.block, size)] * 4), 4 * bench.block)
    return {
        "cores": cores,
        "images_per_second": round(rate, 1),
        "decoded_per_second": round(decoding, 1),
        "decoded_per_second_of_a_core": round(a_core, 1),
        "cores_that_keep_the_device_busy": round(alone / a_core, 1),
    }


def two_processes(bench: Bench) -> dict[str, float]:
    """Measure two actors on one card, each in a process of its own, against one alone."""
    command = [sys.executable, __file__, "--device", bench.device, "--part", "actor", *(["--toy"] if bench.toy else [])]

    def run(count: int) -> float:
        processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # it is warm
        rates = []
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            rates.append(float(process.stdout.readline()))
            process.wait()
        return sum(rates)

    one, two = run(1), run(2)
    return {"one": round(one, 1), "two": round(two, 1), "ratio": round(two / one, 3)}


def actor(bench: Bench) -> None:
    """Measure an actor once a line comes in, and print its rate."""
    model = random_model(bench)
    worker = Actor(model)
    blocks = [bench.crops(bench.block, model.config.tower.crop_size)] * 4
    worker.all(blocks)
    print("warm", flush=True)
    sys.stdin.readline()
    print(bench.rate(lambda: worker.all(blocks), 4 * bench.block), flush=True)


@contextmanager
def watched(bench: Bench, results: dict[str, Any]) -> Iterator[None]:
    """Add to `results` the means of what nvidia-smi says within the context, twice a second."""
    if bench.device == "cpu":
        yield
        return
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", "-lms", "500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.terminate()
        said = process.communicate()[0]
    rows = np.array([[float(value) for value in line.split(",")] for line in said.splitlines() if "[" not in line], float)
    if len(rows):
        means = dict(zip(("use_percent", "watts", "megahertz", "mib"), rows.mean(0).round(1).tolist(), strict=True))
        results["nvidia_smi"] = means | {"most_mib": float(rows[:, 3].max())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="where the model runs")
    parser.add_argument("--toy", action="store_true", help="a tower of two layers, to try the script without a GPU")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG photos; without it images are generated")
    parser.add_argument("--part", choices=["actor"], help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("gpu: this machine has no GPU: run it on one that has, or try the script with --device cpu --toy", file=sys.stderr)
        sys.exit(2)
    bench = Bench(args.device, args.toy)
    if args.part == "actor":
        return actor(bench)
    photos = images_of(args.photos, args.toy)
    clock = time.perf_counter()
    results: dict[str, Any] = {}
    parts: dict[str, Callable[[], dict[str, Any]]] = {"peak_tflops": lambda: {k: round(v, 3) for k, v in peaks(bench).items()}}
    parts |= {name: (lambda vision=vision: tower(bench, vision, results["peak_tflops"])) for name, vision in bench.towers.items()}
    parts |= {
        "annotator": lambda: annotator(bench),
        "two_processes": lambda: two_processes(bench),
        "from_jpegs": lambda: from_jpegs(bench, photos),
        "labels": lambda: moved(np.stack([preprocess.crop(Image.open(BytesIO(data)), 224) for data in photos]), bench.device),
    }
    for name, part in parts.items():
        said: dict[str, Any] = {}
        with watched(bench, said):
            found = part()
        results[name] = found | said
        print(f"{time.perf_counter() - clock:.0f} s  {name}: {json.dumps(results[name])}", file=sys.stderr, flush=True)
    results["seconds"] = round(time.perf_counter() - clock)
    report("gpu", results, args.json)


if __name__ == "__main__":
    main()
