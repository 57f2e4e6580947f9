"""The table that benchmarks/reannotate.py annotates: the rows of a small one, repeated."""

import importlib
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

FILE = "annotations/dt=2026-01-02/part-first-0-00000.parquet"


@pytest.fixture
def reannotate(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2] / "benchmarks")])
    return importlib.import_module("reannotate")


@pytest.fixture
def output(tmp_path):
    """An output of three rows."""
    rows = {"image_id": pa.array([7, 8, 9], pa.int64()), "uri": [f"/photos/{i}.jpg" for i in range(3)], "sentence": ["calm", "sad", "glad"]}
    for place in ("annotations/dt=2026-01-02", "runs"):
        (tmp_path / "first" / place).mkdir(parents=True)
    pq.write_table(pa.table(rows), tmp_path / "first" / FILE)
    record = {"run_id": "first", "files": [FILE], "counts": {"rows": 3, "listed": 3, "known": 0}}
    (tmp_path / "first" / "runs" / "first.json").write_text(json.dumps(record))
    return tmp_path / "first"


def test_a_table_is_repeated_until_it_has_the_rows_each_an_image_of_its_own(reannotate, output, tmp_path):
    larger = reannotate.repeated(output, 8, tmp_path / "larger")
    rows = pq.read_table(larger / FILE, partitioning=None)
    assert rows["image_id"].to_pylist() == list(range(1, 9))
    assert len(set(rows["uri"].to_pylist())) == 8
    assert rows["sentence"].to_pylist() == ["calm", "sad", "glad", "calm", "sad", "glad", "calm", "sad"]
    assert json.loads((larger / "runs" / "first.json").read_text())["counts"] == {"rows": 8, "listed": 8, "known": 0}


def test_sentences_are_compared_by_the_photo_they_are_of(reannotate, output, tmp_path):
    larger = reannotate.repeated(output, 8, tmp_path / "larger")
    assert reannotate.sentences(larger) == reannotate.sentences(output, "first") == {"0.jpg": "calm", "1.jpg": "sad", "2.jpg": "glad"}
