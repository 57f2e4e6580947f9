"""Small files of an Iceberg table are merged: which, into what, and what other writers see of it."""

import datetime as dt
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitStateUnknownException

from pipeline.errors import StorageError, UserError
from pipeline.table_formats import iceberg, iceberg_rewrite
from pipeline.table_formats.iceberg_catalog import TableName
from pipeline.table_formats.iceberg_table import IcebergTable
from tests.plugins.outputs import Made


@pytest.fixture
def table(made):
    """Three runs of one night and two of the next, of which the table has all but the last."""
    for i in range(5):
        made.commit(f"r{i}", range(10 * i, 10 * i + 5), date=f"2026-01-0{2 + i // 3}", schemes=["valence"] if i else ["polarity3"])
        if i < 4:
            iceberg.add(made.folder)
    return made


def files(made):
    """How many files each night has."""
    dates = [str(iceberg_rewrite.date_of(task)) for task in IcebergTable(made.folder, TableName()).tasks()]
    return {date: dates.count(date) for date in sorted(dates)}


def test_each_nights_files_become_one_by_one_commit(table):
    assert iceberg.compact(table.folder, None) == {"numFilesAdded": 2, "numFilesRemoved": 5, "partitionsOptimized": 2}
    assert table.in_iceberg().equals(table.rows())
    assert files(table) == {"2026-01-02": 1, "2026-01-03": 1}
    assert [str(each.summary.operation.value) for each in table.iceberg.snapshots()] == ["append"] * 5 + ["overwrite"]
    assert iceberg.compact(table.folder, None)["numFilesRemoved"] == 0
    assert len(table.iceberg.snapshots()) == 6


def test_only_nights_before_a_date_are_merged_and_no_file_is_removed(table):
    before = set(Path(table.output).rglob("*.parquet"))
    iceberg.compact(table.folder, dt.date(2026, 1, 3))
    assert table.in_iceberg().equals(table.rows())
    assert files(table) == {"2026-01-02": 1, "2026-01-03": 2}
    assert before < set(Path(table.output).rglob("*.parquet"))


def test_files_are_merged_up_to_a_size(table, monkeypatch):
    sizes = [task.file.file_size_in_bytes for task in IcebergTable(table.folder, TableName()).tasks()]
    monkeypatch.setattr(iceberg_rewrite, "FILE_BYTES", 2 * max(sizes) + 1)
    assert iceberg.compact(table.folder, None) == {"numFilesAdded": 2, "numFilesRemoved": 4, "partitionsOptimized": 2}
    assert files(table) == {"2026-01-02": 2, "2026-01-03": 1}
    monkeypatch.setattr(iceberg_rewrite, "FILE_BYTES", min(sizes))
    assert iceberg.compact(table.folder, None)["numFilesRemoved"] == 0


def test_a_merged_file_is_as_those_of_runs_with_the_ids_of_its_columns(table, monkeypatch):
    monkeypatch.setattr(iceberg_rewrite, "GROUP_ROWS", 10)
    iceberg.compact(table.folder, None)
    merged = next((Path(table.output) / "annotations" / "dt=2026-01-02").glob("compacted-*"))
    schema, footer = pq.read_schema(merged), pq.read_metadata(merged)
    assert schema.names == [field.name for field in table.iceberg.schema().fields if field.name != "dt"]
    assert schema.field("uri").type == "string"
    assert schema.field("image_id").metadata[b"PARQUET:field_id"] == b"1"
    assert [footer.row_group(number).num_rows for number in range(footer.num_row_groups)] == [10, 5]
    assert {footer.row_group(0).column(number).compression for number in range(footer.num_columns)} == {"ZSTD"}


def test_a_run_that_is_added_meanwhile_is_in_the_table_too(table, monkeypatch):
    merge, late = iceberg_rewrite.merge, []

    def merging(*args):
        if not late:
            late.append(table.commit("late", range(90, 95)))
            iceberg.add(table.folder)
        return merge(*args)

    monkeypatch.setattr(iceberg, "merge", merging)
    iceberg.compact(table.folder, None)
    assert table.in_iceberg().equals(table.rows())
    assert files(table) == {"2026-01-02": 2, "2026-01-03": 1}


def test_a_run_that_is_added_at_the_same_moment_is_in_the_table_too(table, monkeypatch):
    commit, late = SqlCatalog.commit_table, []

    def committing(catalog, *args):
        if not late:
            late.append(table.commit("late", range(90, 95)))
            iceberg.add(table.folder)
        return commit(catalog, *args)

    iceberg.add(table.folder)
    monkeypatch.setattr(SqlCatalog, "commit_table", committing)
    iceberg.compact(table.folder, None)
    assert table.in_iceberg().equals(table.rows())
    assert files(table) == {"2026-01-02": 2, "2026-01-03": 1}


def test_rows_that_are_deleted_meanwhile_do_not_come_back(table, monkeypatch):
    merge, done = iceberg_rewrite.merge, []

    def merging(*args):
        if not done:
            done.append(table.iceberg.delete("run_id = 'r1'"))
        return merge(*args)

    monkeypatch.setattr(iceberg, "merge", merging)
    with pytest.raises(UserError, match=r"another writer has changed annotations/dt=2026-01-02/part-r1-.* meanwhile: run the same command"):
        iceberg.compact(table.folder, None)
    assert "r1" not in table.in_iceberg()["run_id"].to_pylist()
    iceberg.compact(table.folder, None)
    assert len(table.in_iceberg()) == 20
    assert files(table) == {"2026-01-02": 1, "2026-01-03": 1}


def test_a_compaction_whose_answer_is_lost_is_not_made_again(table, monkeypatch):
    commit, lost = SqlCatalog.commit_table, []

    def losing(catalog, *args):
        answer = commit(catalog, *args)
        if not lost:
            lost.append(answer)
            raise CommitStateUnknownException("no answer came")
        return answer

    iceberg.add(table.folder)
    monkeypatch.setattr(SqlCatalog, "commit_table", losing)
    assert iceberg.compact(table.folder, None)["numFilesRemoved"] == 5
    assert table.in_iceberg().equals(table.rows())
    assert len(table.iceberg.snapshots()) == 6


def test_a_compaction_that_died_leaves_the_table_as_it_was(table, monkeypatch):
    iceberg.add(table.folder)
    with monkeypatch.context() as patch:
        patch.setattr(IcebergTable, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            iceberg.compact(table.folder, None)
    assert table.in_iceberg().equals(table.rows())
    assert files(table) == {"2026-01-02": 3, "2026-01-03": 2}


def test_a_file_that_can_not_be_read_leaves_the_table_as_it_was(table):
    iceberg.add(table.folder)
    next(Path(table.output).rglob("part-r1-*.parquet")).write_bytes(b"PAR1 or not")
    with pytest.raises(UserError, match=r"part-r1-.* can't be read"):
        iceberg.compact(table.folder, None)
    assert len(table.iceberg.snapshots()) == 5


def test_storage_that_is_full_is_another_error(table, monkeypatch):
    monkeypatch.setattr(iceberg, "merge", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(StorageError, match="annotations was not compacted, and is unchanged: the disk is full"):
        iceberg.compact(table.folder, None)


def test_an_output_in_s3_is_compacted_as_well(s3, tmp_path):
    made = Made(f"s3://{s3.bucket}/{tmp_path.name}", s3.options)
    for run_id in ("a", "b"):
        made.commit(run_id, range(5))
        iceberg.add(made.folder)
    assert iceberg.compact(made.folder, None)["numFilesRemoved"] == 2
    assert made.in_iceberg().equals(made.rows())
