"""Measures how many images a second the actors that find duplicates serve, alone and in parts.

    python benchmarks/dedup.py      # about a minute

Callers claim the hashes of blocks of 256 new images as loaders do, in claims of the size that belongs to the number of parts, as fast as
they can. Callers and actors share this machine's cores, so the rate says little of a cluster. What an actor's own process computes for
an image says how many images/s the parts serve that have a core each.
"""

import argparse
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
import ray
from measure import report

from pipeline.stages import dedup as dedup_module
from pipeline.stages import load
from pipeline.stages.dedup import LOADERS_A_PART, DedupActor, Deduplicator

CALLERS = 2
BLOCK = 256


class Measured(DedupActor):
    """An actor that tells what its process has computed."""

    def cpu_seconds(self) -> float:
        times = psutil.Process().cpu_times()
        return times.user + times.system


class Rows:
    """A fetcher whose rows are fetched already."""

    def fetch(self, rows: list[Any]) -> Any:
        yield from rows


def claim(dedup: Deduplicator, caller: int, blocks: int) -> None:
    """Claim the hashes of some blocks of new images."""
    numbers = random.Random(caller)
    for block in range(blocks):
        hashes: list[Any] = [({}, numbers.randbytes(32).hex()) for _ in range(BLOCK)]
        for chunk in load._chunks(hashes, Rows(), dedup.most_claimed):  # type: ignore[arg-type]
            dedup.owners(caller * 2**20 + block, [each for _, each in chunk])  # type: ignore[misc]


def measure(parts: int, blocks: int) -> dict[str, float]:
    """Return the rate of claims with as many parts, and what an actor computes for an image of the run."""
    dedup = Deduplicator.start(None, parts * LOADERS_A_PART)  # type: ignore[arg-type]
    callers = [ray.remote(num_cpus=0)(claim) for _ in range(CALLERS)]
    ray.get([caller.remote(dedup, i, 2) for i, caller in enumerate(callers)])
    before = ray.get([actor.cpu_seconds.remote() for actor in dedup.actors])
    began = time.perf_counter()
    ray.get([caller.remote(dedup, CALLERS + i, blocks) for i, caller in enumerate(callers)])
    seconds = time.perf_counter() - began
    after = ray.get([actor.cpu_seconds.remote() for actor in dedup.actors])
    for actor in dedup.actors:
        ray.kill(actor)
    images = CALLERS * blocks * BLOCK
    busiest = max(end - start for start, end in zip(before, after, strict=True)) / images
    return {
        "images_a_second_here": round(images / seconds),
        "microseconds_an_image_of_the_busiest_actor": round(busiest * 1e6, 2),
        "images_a_second_with_a_core_each": round(1 / busiest),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=400, help="blocks of 256 images that each caller claims")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    os.environ |= {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    dedup_module.DedupActor = Measured  # type: ignore[misc]
    report("dedup", {str(parts): measure(parts, args.blocks) for parts in (1, 4, 8)}, args.json)


if __name__ == "__main__":
    main()
