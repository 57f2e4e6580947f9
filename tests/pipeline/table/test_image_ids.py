"""The IDs of the images in files of a table."""

import io
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.storage.client import read_range
from pipeline.table.image_ids import PastFiles, union
from pipeline.table.output_folder import OutputFolder


@pytest.fixture
def output(tmp_path):
    """An output on the local disk: `table` writes a file of the table."""

    def table(name, ids):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        ids = pa.array(ids, pa.int64())
        pq.write_table(pa.table({"image_id": ids, "sentence": ["a sentence of some length"] * len(ids)}), tmp_path / name)
        return name

    return SimpleNamespace(folder=OutputFolder(str(tmp_path), {}), root=tmp_path, table=table)


def test_the_ids_of_many_files_are_sorted_and_each_in_once(output):
    rng = np.random.default_rng(0)
    ids = [rng.integers(-(2**63), 2**63, 1000) for _ in range(40)]
    files = [output.table(f"annotations/part-{i}.parquet", [*some, *ids[0][:10]]) for i, some in enumerate(ids)]
    found, failed = PastFiles(files).read_all(output.folder)
    assert failed.tolist() == []
    assert found.dtype == np.int64
    assert found.tolist() == sorted({int(number) for some in ids for number in some})


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize(
    ("retry", "annotated", "failed"),
    [((), [1, 2, 3, 4, 5], []), (("a",), [1, 3, 4, 5], [2, 3]), (("b",), [1, 2, 3, 4], [5]), (("a", "b"), [1, 3, 4], [2, 3, 5])],
)
def test_failures_that_may_pass_count_apart_in_the_runs_whose_images_are_retried(output, compacted, retry, annotated, failed):
    tables = []
    for run, ids, status in (("a", [1, 2, 3, 4], ["ok", "timeout", "missing", "corrupt"]), ("b", [3, 5], ["ok", "timeout"])):
        tables.append(pa.table({"image_id": pa.array(ids, pa.int64()), "status": status, "run_id": [run] * len(ids)}))
        pq.write_table(tables[-1], f"{output.root}/part-{run}-00000000-00000.parquet")
    other = pa.table({"image_id": pa.array([9], pa.int64()), "status": ["timeout"], "run_id": ["other"]})
    pq.write_table(pa.concat_tables([*tables, other]), output.root / "compacted.parquet")
    files = ["compacted.parquet"] if compacted else [f"part-{run}-00000000-00000.parquet" for run in "ab"]
    found = PastFiles(files, retry, ("a", "b") if compacted else None).read_all(output.folder)
    assert (found.annotated.tolist(), found.failed.tolist()) == (annotated, failed)


def test_no_files_hold_no_ids(output):
    for files in ([], [output.table("empty.parquet", [])]):
        assert [ids.tolist() for ids in PastFiles(files).read_all(output.folder)] == [[], []]


def test_only_the_ids_of_a_file_are_read(s3, monkeypatch):
    rng = np.random.default_rng(0)
    columns = {name: [rng.bytes(40_000) for _ in range(200)] for name in ("sentence", "embedding")}
    sink = io.BytesIO()
    pq.write_table(pa.table({"sentence": columns["sentence"], "image_id": range(200), "embedding": columns["embedding"]}), sink)
    s3.put("ids/part.parquet", sink.getvalue())
    came = []
    monkeypatch.setattr("pipeline.storage.files.read_range", lambda *asked: came.append(read_range(*asked)) or came[-1])
    assert PastFiles(["ids/part.parquet"]).read_all(OutputFolder(f"s3://{s3.bucket}", s3.options)).annotated.tolist() == list(range(200))
    assert 0 < sum(map(len, came)) < 2.5 * 2**20 < len(sink.getvalue()) / 6


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
def test_a_file_that_a_record_lists_and_can_not_be_read_is_named(output, damage):
    name = output.table("annotations/part-0.parquet", range(5))
    path = output.root / name
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    else:
        pq.write_table(pa.table({"id": [1]}), path)
    with pytest.raises(UserError, match=r"part-0\.parquet can't be read \(.*\), and a run record lists it: restore it") as error:
        PastFiles([name]).read_all(output.folder)
    assert "\n" not in str(error.value)


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30)))
def test_a_union_is_that_of_sets(arrays):
    assert union(np.array(some, np.int64) for some in arrays).tolist() == sorted(set().union(*arrays))


@pytest.mark.slow
def test_a_union_of_what_is_repeated_takes_little_more_than_the_result():
    """Fifty nights that annotated the same million images."""
    tracemalloc.start()
    try:
        assert len(union(np.arange(2**20) for _ in range(50))) == 2**20
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20 * 8
    finally:
        tracemalloc.stop()


def test_rows_are_known_by_their_ids_in_files_of_runs_that_kept_columns(output):
    rows = pa.table({"image_id": [1, 1, 2], "row_id": [7, 8, 9], "status": ["ok", "missing", "ok"], "run_id": ["a"] * 3})
    before = pa.table({"image_id": [1], "status": ["ok"], "run_id": ["b"]})
    for name, table in {
        "part-a-00000000-00000": rows,
        "both": pa.concat_tables([rows, before], promote_options="default"),
        "before": before,
    }.items():
        pq.write_table(table, output.root / f"{name}.parquet")
    for files in (["part-a-00000000-00000.parquet"], ["both.parquet", "before.parquet"]):
        found = PastFiles(files, ("a",), ("a",), key="row_id").read_all(output.folder)
        assert (found.annotated.tolist(), found.failed.tolist()) == ([7, 9], [8])
