"""A short `make chaos`: a driver and an actor are killed (UGRIE_CHAOS_RUNS sets the number of runs), and nothing is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
RUNS = int(os.environ.get("UGRIE_CHAOS_RUNS", "2"))


@pytest.mark.timeout(300 + 200 * RUNS)
def test_runs_that_are_killed_lose_nothing(corpus, images, tmp_path):
    for i in range(60):
        (tmp_path / f"{i}.jpg").write_bytes(images.jpeg(i % 40))  # a third have the bytes of another image, mostly of another block
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "chaos.py"),
        "--photos",
        str(tmp_path),
        "--runs",
        str(RUNS),
        "--block-rows",
        "4",
        "--stub",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280 + 200 * RUNS)
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads(done.stdout)["results"]
    assert results["undisturbed"]["status"] == {"ok": 60}
    assert results["killed"] == RUNS
    assert (results["lost"], results["double"], results["different"]) == (0, 0, 0)
    assert {story["part"] for story in results["stories"] if story["struck"]} == set(("driver", "actor", "worker", "raylet")[:RUNS])
