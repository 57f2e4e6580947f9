"""Every benchmark runs, at a toy size, and compares what it says it compares."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(script: str, *flags: str) -> dict:
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / script, "--json", *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["results"]


def test_slots():
    results = run("slots.py", "--geometry", "bundled", "--batch", "2", "--repeats", "1")
    assert set(results["bundled"]["2"]["milliseconds"]) >= {"ours, phrases", "generate, greedy", "every sentence scored"}
    assert results["bundled"]["labels"] == {"compared": 10, "differing": 0}


def test_gpu_on_a_cpu_at_toy_size():
    results = run("gpu.py", "--device", "cpu", "--toy", "--batch", "4", "--batches", "2")
    assert results["toy"]["annotator_images_per_second"] > 0
