"""What an output holds already: records and the ids of images."""

import io
import json
import tracemalloc
from types import SimpleNamespace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.storage.client import get
from pipeline.table.run_record import image_ids, past_runs, union
from pipeline.table.schema import SCHEMA_VERSION

MODEL = "ugrie-tiny@0123456789ab"


@pytest.fixture
def output(tmp_path):
    """An output on the local disk: `record` writes a record, `table` a file of the table."""
    fs, root = fsspec.filesystem("file"), str(tmp_path)
    (tmp_path / "runs").mkdir()

    def record(run_id, **parts):
        whole = {
            "run_id": run_id,
            "schema_version": SCHEMA_VERSION,
            "model": MODEL,
            "date": "2026-01-02",
            "finished_at": "2026-01-02T03:00:00+00:00",
            "schemes": {"polarity2": "categorical"},
            "counts": {"rows": 0},
            "files": [],
            "config": {},
        }
        fs.pipe_file(f"{root}/runs/{run_id}.json", json.dumps(whole | parts).encode())

    def table(name, ids):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        ids = pa.array(ids, pa.int64())
        pq.write_table(pa.table({"image_id": ids, "sentence": ["a sentence of some length"] * len(ids)}), tmp_path / name)
        return name

    return SimpleNamespace(fs=fs, root=root, record=record, table=table)


def runs(output):
    return [record["run_id"] for record in past_runs(output.fs, output.root, MODEL)]


def test_the_runs_of_a_model_are_found_newest_first(output):
    output.record("c", date="2026-01-03")
    output.record("a", finished_at="2026-01-02T05:00:00+00:00")
    output.record("b", finished_at="2026-01-02T04:00:00+00:00")
    output.record("d", date="2026-01-01", finished_at="2026-02-01T00:00:00+00:00")
    output.record("other", model="ugrie-tiny@ffffffffffff")
    output.fs.pipe_file(f"{output.root}/runs/c.html", b"<html>")
    assert runs(output) == ["c", "a", "b", "d"]
    assert past_runs(output.fs, output.root, "ugrie-tiny@ffffffffffff")[0]["run_id"] == "other"


def test_an_output_that_is_new_has_no_runs(output):
    assert runs(output) == []
    assert past_runs(output.fs, f"{output.root}/nowhere", MODEL) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half a rec", r"runs/x\.json is no run's record \(.*\): mend it, or move it elsewhere"),
        ("{}", r"runs/x\.json is no run's record \(its schema_version is None\)"),
        ("[]", r"runs/x\.json is no run's record \(its schema_version is None\)"),
        ('{"schema_version": "1"}', r"runs/x\.json is no run's record \(its schema_version is 1\)"),
        ('{"schema_version": 1}', r"runs/x\.json is no run's record \('run_id' is not there, or not as it should be\)"),
        ('{"schema_version": 2}', r"runs/x\.json has schema_version 2, and this UGRIE reads 1: take a newer one, or another output"),
    ],
)
def test_a_record_that_can_not_be_understood_is_named_and_never_misread(output, text, message):
    output.record("good")
    output.fs.pipe_file(f"{output.root}/runs/x.json", text.encode())
    with pytest.raises(UserError, match=message) as error:
        runs(output)
    assert "\n" not in str(error.value)


def test_an_output_that_can_not_be_read_is_a_users_error(s3):
    fs = fsspec.filesystem("s3", **s3.refused)
    with pytest.raises(UserError, match=r"the output can't be read: .*; check the path and the credentials"):
        past_runs(fs, f"{s3.bucket}/out", MODEL)


def test_the_ids_of_many_files_are_sorted_and_each_in_once(output):
    rng = np.random.default_rng(0)
    ids = [rng.integers(-(2**63), 2**63, 1000) for _ in range(40)]
    files = [output.table(f"annotations/part-{i}.parquet", [*some, *ids[0][:10]]) for i, some in enumerate(ids)]
    found = image_ids(output.fs, output.root, files)
    assert found.dtype == np.int64
    assert found.tolist() == sorted({int(number) for some in ids for number in some})


def test_rows_of_some_statuses_are_left_out_unless_another_row_has_the_image(output):
    for name, ids, status in (("a", [1, 2, 3, 4], ["ok", "timeout", "missing", "corrupt"]), ("b", [3, 5], ["ok", "timeout"])):
        pq.write_table(pa.table({"image_id": pa.array(ids, pa.int64()), "status": status}), f"{output.root}/{name}.parquet")
    assert image_ids(output.fs, output.root, ["a.parquet", "b.parquet"], but=["timeout", "missing"]).tolist() == [1, 3, 4]


def test_no_files_hold_no_ids(output):
    assert image_ids(output.fs, output.root, []).tolist() == []
    assert image_ids(output.fs, output.root, [output.table("empty.parquet", [])]).tolist() == []


def test_only_the_ids_of_a_file_are_read(s3, monkeypatch):
    rng = np.random.default_rng(0)
    columns = {name: [rng.bytes(40_000) for _ in range(200)] for name in ("sentence", "embedding")}
    sink = io.BytesIO()
    pq.write_table(pa.table({"sentence": columns["sentence"], "image_id": range(200), "embedding": columns["embedding"]}), sink)
    s3.put("ids/part.parquet", sink.getvalue())
    came = []
    monkeypatch.setattr("pipeline.storage.files.get", lambda *asked, get=get: came.append(get(*asked)) or came[-1])
    assert image_ids(s3.fs, s3.bucket, ["ids/part.parquet"]).tolist() == list(range(200))
    assert 0 < sum(map(len, came)) < 2.5 * 2**20 < len(sink.getvalue()) / 6


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_file_that_a_record_lists_and_can_not_be_read_is_named(output, damage):
    name = output.table("annotations/part-0.parquet", range(5))
    path = f"{output.root}/{name}"
    if damage == "gone":
        output.fs.rm_file(path)
    elif damage == "cut":
        output.fs.pipe_file(path, output.fs.cat_file(path)[:50])
    else:
        pq.write_table(pa.table({"id": [1]}), path)
    with pytest.raises(UserError, match=r"part-0\.parquet can't be read \(.*\), and a run's record lists it: restore it") as error:
        image_ids(output.fs, output.root, [name])
    assert "\n" not in str(error.value)


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30)))
def test_a_union_is_that_of_sets(arrays):
    assert union(np.array(some, np.int64) for some in arrays).tolist() == sorted(set().union(*arrays))


def test_a_union_of_what_is_repeated_takes_little_more_than_the_result():
    """Fifty nights that annotated the same million images."""
    tracemalloc.start()
    try:
        assert len(union(np.arange(2**20) for _ in range(50))) == 2**20
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20 * 8
    finally:
        tracemalloc.stop()
