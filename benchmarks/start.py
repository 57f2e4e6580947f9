"""Measures the time from the start of a run until its first rows are written, by part, and the processor time of its imports.

    python benchmarks/start.py --photos DIR                     # about four minutes
    python benchmarks/start.py --photos DIR --against FOLDER    # beside another checkout, which has its own .venv

Runs jobs/annotate.py, each with a local Ray of its own, and times it from the start of the command to the first block's file; results are
medians. Also runs what an annotating actor imports and loads before it can work, and Ray Data's import, each in a new Python process.
With `--against`, the runs of both alternate, and `ratio` is the median of this one's share of the other's within a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from measure import report

ROOT = Path(__file__).parents[1]
IMPORTS = {
    "python": "",
    "ray": "import ray",
    "ray_data": "import ray.data",
    "torch": "import torch",
    "driver": "import pipeline.run.driver",
    "loader": "import pipeline.stages.load",
    "annotator": "from ugrie import UGRIE; UGRIE.from_pretrained('ugrie-tiny')",
}


def python_of(root: Path) -> str:
    return sys.executable if root == ROOT else str(root / ".venv" / "bin" / "python")


def processor_seconds(root: Path, code: str) -> float:
    """Return the seconds of processor time that a new Python process of a checkout takes to run this code."""
    before = os.times()
    subprocess.run([python_of(root), "-c", code], cwd=root, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def run(root: Path, photos: Path, output: Path) -> dict[str, float]:
    """Run a checkout's job, and return the seconds of its parts."""
    clock = time.perf_counter()
    before = os.times()
    command = [python_of(root), str(root / "jobs" / "annotate.py"), "--input", str(photos), "--output", str(output), "--run-id", "start"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = None
    while process.poll() is None:
        if first is None and any((output / "_work" / "start" / "rows").glob("block-*.parquet")):
            first = time.perf_counter() - clock
        time.sleep(0.05)
    whole = time.perf_counter() - clock
    after = os.times()
    timings = json.loads((output / "runs" / "start.json").read_text())["timings"]
    assert first is not None
    return {
        "first_rows": first,
        "ray": timings["ray_seconds"],
        "first_block_since_ray": timings["first_block_seconds"],
        "whole_run": whole,
        "driver_processor": after.children_user + after.children_system - before.children_user - before.children_system,
    }


def measure(root: Path, photos: Path, output: Path) -> dict[str, float]:
    imports = {f"import_{name}_processor": processor_seconds(root, code) for name, code in IMPORTS.items()}
    return run(root, photos, output) | imports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--against", type=Path, help="the folder of another checkout")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    roots = [ROOT, *([args.against.resolve()] if args.against else [])]
    rounds: list[list[dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix="ugrie-start-") as folder:
        for number in range(args.repeats):
            order = roots if number % 2 == 0 else roots[::-1]
            found = {root: measure(root, args.photos.resolve(), Path(folder) / f"{number}-{index}") for index, root in enumerate(order)}
            rounds.append([found[root] for root in roots])
    names = list(rounds[0][0])
    results = {"seconds": {name: round(statistics.median(each[0][name] for each in rounds), 1) for name in names}}
    if args.against:
        results["seconds_of_the_other"] = {name: round(statistics.median(each[1][name] for each in rounds), 1) for name in names}
        results["ratio"] = {name: round(statistics.median(each[0][name] / each[1][name] for each in rounds), 2) for name in names}
    report("start", results, args.json)


if __name__ == "__main__":
    main()
