"""A short `make chaos`: one run loses a worker, its annotator, its driver and its raylet, and nothing is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(500)
def test_a_run_whose_processes_are_killed_loses_nothing(images, tmp_path):
    for i in range(60):
        (tmp_path / f"{i}.jpg").write_bytes(images.jpeg(i % 40))  # a third have the bytes of another image, mostly of another block
    command = [sys.executable, str(ROOT / "benchmarks" / "chaos.py"), "--photos", str(tmp_path), "--runs", "1", "--together"]
    done = subprocess.run([*command, "--block-rows", "1", "--stub", "--json"], capture_output=True, text=True, timeout=480)
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads(done.stdout)["results"]
    assert results["undisturbed"]["status"] == {"ok": 60}
    story = results["stories"][-1]
    assert set(story["part"].split(", ")) == {"driver", "actor", "worker", "raylet"}
    assert len(story["struck"]) == 4
    assert (results["lost"], results["double"], results["different"]) == (0, 0, 0)
