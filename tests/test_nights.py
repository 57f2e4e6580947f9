"""The three nights of docs/examples/three_nights.py: each does its own work and no other, and the third's report marks what went around."""

import importlib
import re
from pathlib import Path

import pytest

from jobs.sample import main as sample
from pipeline.config import AnnotateConfig
from pipeline.run import annotate

ROOT = Path(__file__).parents[1]


@pytest.fixture
def nights(monkeypatch):
    monkeypatch.setattr("sys.path", [str(ROOT / "docs" / "examples"), *importlib.sys.path])
    return importlib.import_module("three_nights")


def drifted(output, run_id):
    page = (output / "runs" / f"{run_id}.html").read_text()
    return re.findall(r"Drift in ([\w, ]+)\.", page)


def test_three_nights(nights, local_ray, tmp_path):
    sample(tmp_path / "photos")
    photos = sorted(path for path in (tmp_path / "photos").glob("*.jpg") if "_" not in path.stem)
    assert nights.AROUND in {photo.stem for photo in photos}
    corpus = nights.Corpus(tmp_path / "images", photos, scale=0.3)
    for number, night in enumerate(nights.NIGHTS, 1):
        wanted = corpus.grow(number, night)
        config = AnnotateConfig(input=str(corpus.folder), output=str(tmp_path / "output"), date=night.date, run_id=f"night-{number}")
        assert nights.said(annotate(config)) == wanted
    assert [bool(drifted(tmp_path / "output", f"night-{number}")) for number in (1, 2, 3)] == [False, False, True]
