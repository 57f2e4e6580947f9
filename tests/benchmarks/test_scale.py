"""benchmarks/scale.py and kept_columns.py: stubs, a run and plans at a toy size, and the page that projection.py computes from results."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ugrie.model import checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of benchmarks/."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    return importlib.import_module


def test_the_stub_of_the_model_gives_every_scheme_probabilities_that_add_up_to_one(benchmark):
    model = benchmark("stubs").StubModel(checkpoint.read_config(checkpoint.find("ugrie-tiny")))
    (embeddings,) = model.encode([np.zeros((3, 8, 8, 3), np.uint8)])
    prediction = model.predict(embeddings, ("valence", "polarity2"))
    assert len(prediction.sentences()) == 3
    assert prediction.probs.keys() == {"valence", "polarity2"}
    for probs in prediction.probs.values():
        np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)


def test_a_run_is_whole_and_its_memory_is_seen(benchmark, tmp_path):
    found = benchmark("scale").annotated(100, tmp_path / "run")
    assert found["memory_mib"].keys() == {"all", "driver", "report", "worker", "workers", "ray", "object_store"}
    assert found["memory_mib"]["driver"] > 50
    assert found["memory_mib"]["workers"] >= found["memory_mib"]["worker"] > 10
    assert found["files"]["count"] == 1
    assert min(found["milliseconds_a_row"].values()) > 0


def test_a_night_is_planned_whose_images_are_all_known_and_all_new(benchmark, tmp_path):
    found = benchmark("scale").planned(1000, tmp_path / "plan")
    assert {case: (plan["listed"], plan["new"]) for case, plan in found.items()} == {"all known": (1000, 0), "all new": (1000, 1000)}


def test_a_night_is_planned_without_and_with_kept_columns(benchmark, monkeypatch, capsys, tmp_path):
    """Plans in this process, which has imported what that needs, but for one."""
    module, folder = benchmark("kept_columns"), tmp_path / "plan"

    def here(folder, case):
        module.scale.plan(folder, module.CASES[case])
        return json.loads(capsys.readouterr().out)

    with monkeypatch.context() as patch:
        patch.setattr(module, "night", here)
        found = module.planned(1000, folder)
    for case, new in (("all new", 1000), ("all known", 0)):
        assert [(found[case][name]["listed"], found[case][name]["new"]) for name in ("without", "with")] == [(1000, new)] * 2
    alone = module.night(folder, "with")
    assert (alone["listed"], alone["new"]) == (1000, 1000)
    assert alone["peak_mib"] > 50
    compared = module.compared({"without": {"cpu_seconds": 100, "peak_mib": 500}, "with": {"cpu_seconds": 150, "peak_mib": 600}}, 10**6)
    assert compared["added_to_a_row"] == {"cpu_microseconds": 50, "peak_bytes": 104.9}
    assert compared["times"] == {"cpu_seconds": 1.5, "peak_mib": 1.2}


def test_requests_are_told_apart_by_what_they_are_for(benchmark):
    place = benchmark("storage_requests").place
    found = [place(f"/images{path}") for path in ("", "/in-objects-8/1.jpg", "/out-shards-8/_work/r/rows/x", "/out-shards-8/runs/r.json")]
    assert found == ["listing", "images", "work", "output"]


def test_the_page_of_scale_is_what_the_committed_results_come_to(benchmark):
    assert (ROOT / "docs" / "scale.md").read_text() == benchmark("projection").page(), "python benchmarks/projection.py docs/scale.md"


def test_an_image_takes_as_many_operations_in_l14_as_the_page_says(benchmark):
    with torch.device("meta"):
        tower = benchmark("student").vit("ViT-L-14")
        crops = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
        assert round(benchmark("encoder").flops(tower, crops) / 1e9) == benchmark("projection").L14_GFLOPS


def test_numbers_have_two_digits(benchmark):
    number = benchmark("projection").number
    assert [number(value) for value in (0.0123, 1.26, 12.6, 126.4, 1264, 9.96e6)] == ["0.012", "1.3", "13", "130", "1,300", "10,000,000"]
