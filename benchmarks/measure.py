"""Shared by the benchmarks: interleaved timing, the machine's name for file names, and results as JSON."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
SLOW = 20.0  # seconds; a call that takes longer is not repeated


def medians(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each contender, after one call to warm up.

    Every round times all of them in turn, so that a machine that slows down slows all of them equally.
    """
    for call in contenders.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            if any(taken > SLOW for taken in seconds[name]):
                continue
            clock = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - clock)
    return {name: statistics.median(times) for name, times in seconds.items()}


def mean_interval(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean, and with several values its 95 % interval (Student's t)."""
    from scipy import stats  # here, because benchmarks/gpu.py has to run without scipy

    mean = statistics.fmean(values)
    found: dict[str, Any] = {"mean": round(mean, 4)}
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
        found["interval"] = [round(mean - half, 4), round(mean + half, 4)]
    return found


def machine() -> str:
    """Return the GPU, or the processor and its number of cores, and torch's version, in a form fit for a file name."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = platform.processor() or platform.machine()
        cpuinfo = Path("/proc/cpuinfo")
        if cpuinfo.is_file():
            name = next((line.partition(":")[2] for line in cpuinfo.read_text().splitlines() if line.startswith("model name")), name)
        name = f"{name} {os.cpu_count()} cores"
    words = "".join(c if c.isalnum() or c == "." else " " for c in name).split()
    return "-".join([*words, "torch", torch.__version__.partition("+")[0]]).lower()


def save(benchmark: str, result: Mapping[str, Any]) -> Path:
    """Write a result to benchmarks/results, where results are committed, under the machine's name."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{benchmark}-{machine()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def report(benchmark: str, results: Mapping[str, Any], as_json: bool) -> None:
    """Print the results and write them to benchmarks/results; with `as_json` print them with the machine's name and write nothing."""
    if as_json:
        print(json.dumps({"machine": machine(), "results": results}, indent=1))
    else:
        print(json.dumps(results, indent=1))
        print(f"\nwritten to {save(benchmark, results).name}")


def seconds_of(program: list[str], source: str, output: Path, model: str, environment: dict[str, str]) -> float:
    """Return the seconds that a program takes from start to end. Raises CalledProcessError."""
    clock = time.perf_counter()
    command = [sys.executable, *program, "--input", source, "--output", str(output), "--model", model]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout[-4000:], file=sys.stderr)
        done.check_returncode()
    return time.perf_counter() - clock
