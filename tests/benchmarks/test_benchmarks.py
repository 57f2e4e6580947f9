"""Every benchmark runs at a toy size and reports plausible results."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ugrie.schemes.scheme import load_scheme

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script and returns its results. It runs in this process, which has already imported most of what it needs."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])

    def results(script: str, *flags: str) -> dict:
        monkeypatch.setattr(sys, "argv", [script, "--json", *flags])
        runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")
        return json.loads(capsys.readouterr().out)["results"]

    return results


def test_slots(run):
    results = run("slots.py", "--geometry", "bundled", "--batch", "2", "--repeats", "1")
    assert set(results["bundled"]["2"]["milliseconds"]) >= {"ours, phrases", "generate, greedy", "every sentence scored"}
    assert results["bundled"]["labels"] == {"compared": 10, "differing": 0}


def test_gpu_on_a_cpu_at_toy_size(run):
    results = run("gpu.py", "--device", "cpu", "--toy")
    assert results.keys() == {"peak_tflops", "toy", "annotator", "two_processes", "from_jpegs", "labels", "seconds"}
    assert results["annotator"]["images_per_second"] > 0
    assert results["two_processes"]["two"] > 0
    assert results["labels"]["labels"] == 40


def test_host(run):
    milliseconds = run("host.py", "--repeats", "1")["milliseconds"]
    assert milliseconds.keys() == {"whole", "a quarter failed"}
    assert all(value > 0 for kind in milliseconds.values() for value in kind.values())


def test_mapper(run):
    results = run("mapper.py", "--images", "500")["500"]
    assert results["landmarks"] == 700
    assert results["seconds"]["all"] > results["seconds"]["train_epoch"] > 0
    assert results["by_landmarks"].keys() == {"175", "350", "700"}
    assert results["by_landmarks"]["700"]["accuracy"] > 0.4
    assert results["model"]["pearson_r"] > 0.6
    assert results["scikit-learn"]["largest_difference"] < 1e-6


def test_annotate(run, tmp_path):
    for seed in range(3):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / f"{seed}.jpg")
    results = run("annotate.py", "--photos", str(tmp_path), "--repeats", "1")
    assert results["images"] == 3
    assert results["images_per_second"] > 0


def test_precision(run, images, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(images.jpeg(i))
    results = run("precision.py", "--photos", str(tmp_path))
    assert results["labels"] == 15
    assert 0 < results["bf16"]["mean_difference"] < 0.05


def test_profiles(run, images, tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(images.jpeg(i))
    results = run("profiles.py", "--photos", str(tmp_path), "--megapixels", "1")
    assert results.keys() == {"as published", "1 megapixels"}
    assert results["as published"]["milliseconds"].keys() == {"none", "sRGB", "Display P3"}


def test_decode(run, images, tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(images.jpeg(i))
    results = run("decode.py", "--photos", str(tmp_path), "--megapixels", "1")
    assert results.keys() == {"as published", "1 megapixels"}
    assert results["1 megapixels"]["photos"] == 2
    assert results["1 megapixels"]["psnr_least"] > 40
    assert results["1 megapixels"]["milliseconds"].keys() == {"pillow", "ours"}


@pytest.fixture
def flags(tmp_path) -> list[str]:
    """Flags for a short training on embeddings of six emotions, one of which is pleasant."""
    draw = np.random.default_rng(0)
    emotions = np.arange(120) % 6
    (tmp_path / "emotion6").mkdir()
    np.savez(
        tmp_path / "emotion6" / "train.npz",
        embedding=draw.normal(size=(120, 768)).astype(np.float32) + 15 * np.eye(6, 768)[emotions],
        ekman6=np.array(load_scheme("ekman6").label_names)[emotions],
        valence=np.where(emotions == 3, 7.0, 3.0),
    )
    recipe = (ROOT / "ugrie/checkpoints/ugrie-l14/recipe.toml").read_text()
    for key, value in (("epochs", 4), ("batch_size", 16), ("learning_rate", 5e-3)):
        recipe = re.sub(rf"^{key} = .*$", f"{key} = {value}", recipe, flags=re.MULTILINE)
    (tmp_path / "recipe.toml").write_text(recipe)
    return ["--recipe", str(tmp_path / "recipe.toml"), "--data", str(tmp_path)]


def test_probes(run, flags):
    results = run("probes.py", *flags)
    assert results["ekman6 on emotion6/train.npz"]["accuracy"] > 0.8
    assert results["polarity2 on emotion6/train.npz"]["accuracy"] > 0.9
    assert results["valence on emotion6/train.npz"]["pearson_r"] > 0.7


def test_kshot(run, flags):
    results = run("kshot.py", *flags, "--scheme", "ekman6", "--shots", "4", "--draws", "1")
    for contender in ("UGRIE", "logistic regression"):
        assert results[contender]["4"]["accuracy"] > 0.8


def test_review(run, tmp_path):
    draw = np.random.default_rng(0)
    emotions = np.arange(120) % 6
    for name in ("a", "b"):
        embedding = draw.normal(size=(120, 768)).astype(np.float32) + 15 * np.eye(6, 768)[emotions]
        np.savez(tmp_path / f"{name}.npz", embedding=embedding, ekman6=np.array(load_scheme("ekman6").label_names)[emotions])
    recipe = (ROOT / "ugrie/checkpoints/ugrie-l14/recipe.toml").read_text().partition("[[data]]")[0]
    recipe += "".join(f'[[data]]\npath = "{name}.npz"\nschemes = {{ ekman6 = {{}} }}\n\n' for name in ("a", "b"))
    (tmp_path / "recipe.toml").write_text(recipe)
    flags = ("--recipe", str(tmp_path / "recipe.toml"), "--data", str(tmp_path), "--count", "24", "--draws", "2", "--reviews", "4")
    results = run("review.py", *flags, "--corpora", "a.npz:ekman6", "--covered", "b.npz:ekman6")
    assert results["labels"]["a.npz:ekman6"]["review"]["mean"] > 0.8
    assert results["coverage"]["b.npz:ekman6"]["covered"]["accuracy"] == 1


def test_zero_shot(run, clip_model, tmp_path, monkeypatch):
    monkeypatch.setenv("UGRIE_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    labels = np.array(load_scheme("mikels8").label_names)[draw.integers(8, size=60)]
    np.savez(tmp_path / "data.npz", embedding=draw.normal(size=(60, 768)), mikels8=labels, valence=draw.uniform(1, 9, 60))
    flags = ("--model", str(clip_model.folder), "--tower-weights", clip_model.weights, "--data", str(tmp_path / "data.npz"))
    results = run("zero_shot.py", *flags, "--schemes", "mikels8,valence")
    assert results.keys() == {"mikels8", "valence"}
    assert results["mikels8"]["n"] == results["valence"]["n"] == 60
    assert 0 <= results["mikels8"]["accuracy"] < 0.5
    assert -0.5 < results["valence"]["pearson_r"] < 0.5


def test_the_plot_of_learning_is_drawn_from_the_committed_results(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "plot_learning.py", tmp_path / "learning.svg"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "learning.svg").read_text().startswith("<?xml")


def test_pool(run, flags):
    results = run("pool.py", *flags, "--draws", "2")
    bart, regression = (results[f"share of the regression {share}"] for share in (0.0, 1.0))
    accuracy = next(name for name in bart if name.endswith(": accuracy"))
    assert bart[accuracy]["gain over BART"]["mean"] == 0.0
    assert regression[accuracy]["mean"] > 0.9


def test_unified(run, flags):
    results = run("unified.py", *flags, "--folds", "2", "--seeds", "2")
    found = results["measures"]["polarity2 on emotion6/train.npz"]["accuracy"]
    assert found["unified"]["mean"] > 0.9
    assert found["single"]["mean"] > 0.9
    low, high = found["difference"]["interval"]
    assert low <= found["difference"]["mean"] <= high
    assert results["labels that contradict each other"]["polarity2 and ekman6"]["data"] == 0
