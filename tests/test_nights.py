"""Tests docs/examples/three_nights.py: each run annotates its own images and no others, and the third night's report marks drift."""

import importlib
import json
import re
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from jobs.sample import main as sample
from pipeline.config import AnnotateConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def nights():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "examples"))
        return importlib.import_module("three_nights")


@pytest.fixture(scope="module")
def done(nights, annotate_here, tmp_path_factory):
    """The output, and for each night the expected counts and the counts of its run."""
    folder = tmp_path_factory.mktemp("nights")
    sample(folder / "photos")
    photos = sorted(path for path in (folder / "photos").glob("*.jpg") if "_" not in path.stem)
    assert nights.POPULAR in {photo.stem for photo in photos}
    corpus, counts = nights.Corpus(folder / "images", photos, scale=0.3), []
    for number, night in enumerate(nights.NIGHTS, 1):
        wanted = corpus.grow(number, night)
        config = AnnotateConfig(input=str(corpus.folder), output=str(folder / "output"), date=night.date, run_id=f"night-{number}")
        counts.append((wanted, nights.counts_of(json.loads(annotate_here(config).to_json()))))
    return folder / "output", counts


def test_each_night_does_its_own_work(done):
    for wanted, counts in done[1]:
        assert counts == wanted
    assert all(wanted["known"] > 0 for wanted, _ in done[1][1:])


def test_the_report_marks_the_night_on_which_a_photo_goes_around(done):
    pages = [(done[0] / "runs" / f"night-{number}.html").read_text() for number in (1, 2, 3)]
    assert [bool(re.search(r"Drift in [\w, ]+\.", page)) for page in pages] == [False, False, True]


def test_the_page_of_all_nights_marks_it_too_and_its_means_are_those_of_the_rows(done, read_page):
    page = read_page((done[0] / "index.html").read_text())
    rows = re.findall(r"(night-\d) \d+ \d+ \d+\.\d % (–|none|\w+ [\d.]+ %)", page.said)
    assert [(run, drift in ("–", "none")) for run, drift in rows] == [("night-3", False), ("night-2", True), ("night-1", True)]
    dates = ds.dataset(done[0] / "annotations", partitioning="hive").to_table(["dt", "valence"]).to_pandas()
    values = dates.dropna().assign(value=lambda table: [value["value"] for value in table["valence"]])
    now, before = (values[values["dt"].astype(str).isin(which)]["value"].mean() for which in (["2026-11-23"], ["2026-11-21", "2026-11-22"]))
    assert f"1 to 9 {now:.2f} {before:.2f}" in page.said


def test_the_independent_checker_finds_nothing_wrong_with_the_nights(done, check_output):
    check_output(done[0])
