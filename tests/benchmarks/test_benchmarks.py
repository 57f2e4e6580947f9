"""Every benchmark runs, at a toy size, and compares what it says it compares."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from ugrie.schemes import load_scheme

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


def test_probes(tmp_path):
    """Emotions that a regression can tell from the embeddings, and a valence that it can read from them."""
    draw = np.random.default_rng(0)
    embeddings = draw.normal(size=(120, 768)).astype(np.float32)
    names = np.array(load_scheme("ekman6").label_names)
    (tmp_path / "emotion6").mkdir()
    np.savez(
        tmp_path / "emotion6" / "train.npz",
        embedding=embeddings + 15 * np.eye(6, 768)[np.arange(120) % 6],
        ekman6=names[np.arange(120) % 6],
        valence=np.where(np.arange(120) % 6 == 3, 7.0, 3.0),
    )
    results = run("probes.py", "--recipe", str(ROOT / "ugrie/checkpoints/ugrie-l14/recipe.toml"), "--data", str(tmp_path))
    assert results["ekman6"]["accuracy"] > 0.8
    assert results["polarity2"]["accuracy"] > 0.9
    assert results["valence"]["pearson_r"] > 0.7
    assert results["labels that contradict each other"]["polarity2 and ekman6"] == 0
