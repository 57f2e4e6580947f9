"""Measures the time from the start of a run until its first rows are written, by part.

    python benchmarks/start.py --photos DIR      # about four minutes

Runs jobs/annotate.py, each with a local Ray of its own, and times it from the start of the command to the first block's file; results are
medians. Also times the start of Python with an import of the model's libraries, which the annotating actor has to do first.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from measure import report

ROOT = Path(__file__).parents[1]


def seconds_of(code: str) -> float:
    """Return the seconds that a new Python process takes to run this code."""
    clock = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - clock


def run(photos: Path, output: Path) -> dict[str, float]:
    clock = time.perf_counter()
    command = [sys.executable, str(ROOT / "jobs" / "annotate.py"), "--input", str(photos), "--output", str(output), "--run-id", "start"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = None
    while process.poll() is None:
        if first is None and any((output / "_work" / "start" / "rows").glob("block-*.parquet")):
            first = time.perf_counter() - clock
        time.sleep(0.05)
    whole = time.perf_counter() - clock
    timings = json.loads((output / "runs" / "start.json").read_text())["timings"]
    assert first is not None
    return {
        "first_rows": first,
        "ray": timings["ray_seconds"],
        "first_block_since_ray": timings["first_block_seconds"],
        "whole_run": whole,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--repeats", type=int, default=5, help="runs")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ugrie-start-") as folder:
        runs = [run(args.photos, Path(folder) / str(number)) for number in range(args.repeats)]
    imports = {name: [seconds_of(f"import {name}") for _ in range(args.repeats)] for name in ("ray.data", "torch", "ugrie.model.model")}
    results = {
        "seconds": {name: round(statistics.median(each[name] for each in runs), 1) for name in runs[0]},
        "seconds_to_import_alone": {name: round(statistics.median(times), 1) for name, times in imports.items()},
    }
    report("start", results, args.json)


if __name__ == "__main__":
    main()
