"""A run's record, and what is removed once it is there."""

import json

import pytest

from pipeline.storage.filesystem import connect
from pipeline.table import commit


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_the_record_is_json_under_its_runs_name(tmp_path, kind):
    fs, root = connect(str(tmp_path) if kind == "local" else "memory://commit-test", {})
    record = {"run_id": "r-1", "input": "s3://bucket/é"}
    assert commit.write_record(fs, root, record) == record
    path = f"{root}/runs/r-1.json"
    assert json.loads(fs.cat_file(path)) == record
    assert "é".encode() in fs.cat_file(path)
    assert commit.write_record(fs, root, record | {"input": "another driver's"}) == record
    assert json.loads(fs.cat_file(path)) == record


def test_a_file_of_the_table_names_its_run():
    named = {
        "o/annotations/dt=2026-01-02/part-r-0123abcd-00000.parquet": "r",
        "part-r-0123abcd-0123abcd-00000.parquet": "r-0123abcd",
        ".part-r.s-0123abcd-00017.parquet." + "0" * 32: "r.s",
    }
    assert {name: commit.part_of(name) for name in named} == named
    for name in (
        "part-r-00000.parquet",
        "part-r-0123abcd-00000.csv",
        "spark-part-r-0123abcd-00000.parquet",
        "part--0123abcd-00000.parquet",
    ):
        assert commit.part_of(name) is None


def test_what_a_committed_run_left_is_removed_and_nothing_else(tmp_path):
    fs, root = connect(str(tmp_path), {})
    folder = "annotations/dt=2026-01-02"
    kept = [
        f"{folder}/part-r-aaaaaaaa-00000.parquet",
        f"{folder}/part-r-bbbbbbbb-cccccccc-00000.parquet",  # of the run r-bbbbbbbb
        f"{folder}/notes.parquet",
        "annotations/dt=2026-01-03/part-r-bbbbbbbb-00000.parquet",  # not of this run: it has another date
        "_work/other/plan.json",
        "runs/r.json",
    ]
    gone = [
        f"{folder}/part-r-bbbbbbbb-00000.parquet",
        f"{folder}/.part-r-bbbbbbbb-00001.parquet.{'0' * 32}",
        "_work/r/plan.json",
        "_work/r/rows/block-00000000.parquet",
    ]
    for name in kept + gone:
        fs.makedirs(fs._parent(f"{root}/{name}"), exist_ok=True)
        fs.pipe_file(f"{root}/{name}", b"x")
    commit.tidy(fs, root, {"run_id": "r", "date": "2026-01-02", "files": kept[:1]})
    assert sorted(name.removeprefix(f"{root}/") for name in fs.find(root)) == sorted(kept)


def test_a_run_stays_committed_where_what_it_left_cannot_be_removed(tmp_path, monkeypatch, caplog):
    fs, root = connect(str(tmp_path), {})
    fs.makedirs(f"{root}/_work/r")
    monkeypatch.setattr(type(fs), "rm", lambda *_, **__: (_ for _ in ()).throw(PermissionError("no")))
    commit.tidy(fs, root, {"run_id": "r", "date": "2026-01-02", "files": []})
    assert "jobs/clean.py does" in caplog.text
