"""What the benchmarks share: interleaved timing, the machine in a file name, and results as JSON."""

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
    """Median seconds of each, after one call to warm up. Rounds go through all of them in turn, so that a machine that
    slows down slows all alike."""
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
    """The mean, and where there are several values its 95 % interval (Student's t)."""
    from scipy import stats  # the benchmark for GPUs does without

    mean = statistics.fmean(values)
    found: dict[str, Any] = {"mean": round(mean, 4)}
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
        found["interval"] = [round(mean - half, 4), round(mean + half, 4)]
    return found


def machine() -> str:
    """The processor (or GPU), its share of this machine and torch's version, fit for a file name."""
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
    """Writes a result where it is committed, under the machine's name."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{benchmark}-{machine()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def report(benchmark: str, results: Mapping[str, Any], as_json: bool) -> None:
    """Prints results, and writes them where they are committed; or, for programs, prints them with the machine and writes nothing."""
    if as_json:
        print(json.dumps({"machine": machine(), "results": results}, indent=1))
    else:
        print(json.dumps(results, indent=1))
        print(f"\nwritten to {save(benchmark, results).name}")


def seconds_of(program: list[str], source: str, output: Path, model: str, environment: dict[str, str]) -> float:
    """The program's seconds from start to end. Raises CalledProcessError."""
    clock = time.perf_counter()
    command = [sys.executable, *program, "--input", source, "--output", str(output), "--model", model]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout[-4000:], file=sys.stderr)
        done.check_returncode()
    return time.perf_counter() - clock
