"""Files go from an Iceberg table: from its current snapshot, from earlier ones, and from manifests."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitStateUnknownException
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestWriterV2
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles

from pipeline.errors import StorageError, UserError
from pipeline.table_formats import iceberg, iceberg_erase
from pipeline.table_formats.file_catalog import FileCatalog
from pipeline.table_formats.iceberg_catalog import TableName
from pipeline.table_formats.iceberg_table import IcebergTable


@pytest.fixture
def table(made):
    return filled(made)


@pytest.fixture
def table_anywhere(anywhere):
    return filled(anywhere)


def filled(made):
    """Three runs, of which the table has each by a commit of its own."""
    for i, run_id in enumerate("abc"):
        made.commit(run_id, range(10 * i, 10 * i + 5), date=f"2026-01-0{i + 2}")
        iceberg.add(made.folder)
    return made


def file_of(run_id, date, attempt="aaaaaaaa"):
    return f"annotations/dt={date}/part-{run_id}-{attempt}-00000.parquet"


B = file_of("b", "2026-01-03")


def shortened(made, file=B, lost=11):
    """Write a file without one of its images. Return the replacement."""
    fs, root = made.place
    with fs.open(f"{root}/{file}") as opened:
        rows = pq.read_table(opened)
    new = file.replace("aaaaaaaa", "bbbbbbbb")
    with fs.open(f"{root}/{new}", "wb") as opened:
        pq.write_table(rows.filter(pc.not_equal(rows["image_id"], lost)), opened)
    return {file: new}


def ids(made):
    return made.in_iceberg()["image_id"].to_pylist()


def stated(made):
    """The files that manifests in storage, of any snapshot, state minima and maxima of."""
    table = IcebergTable(made.folder, TableName()).table
    fs, root = made.place
    fs.invalidate_cache()
    manifests = {each.manifest_path: each for snapshot in table.snapshots() for each in snapshot.manifests(table.io)}
    lists = {snapshot.manifest_list for snapshot in table.snapshots()}
    there = {path for path in fs.find(f"{root}/annotations/metadata") if path.endswith(".avro")}
    assert there == {fs._strip_protocol(path) for path in (*manifests, *lists)}
    entries = [entry for each in manifests.values() for entry in each.fetch_manifest_entry(table.io, discard_deleted=False)]
    return {entry.data_file.file_path.rpartition("/")[2] for entry in entries if entry.data_file.lower_bounds}


def test_the_new_file_is_in_the_place_of_the_old_one_and_snapshots_that_had_that_are_gone(table_anywhere):
    table = table_anywhere
    iceberg.replace(table.folder, shortened(table))
    assert ids(table) == [*range(5), 10, 12, 13, 14, *range(20, 25)]
    assert iceberg.earlier_files(table.folder) == set()
    assert [len(table.iceberg.scan(snapshot_id=each.snapshot_id).to_arrow()) for each in table.iceberg.snapshots()] == [5, 14]
    assert table.iceberg.current_snapshot().summary["ugrie"] == "clean --erase"
    assert stated(table) == {f"part-{name}-00000.parquet" for name in ("a-aaaaaaaa", "b-bbbbbbbb", "c-aaaaaaaa")}
    version = IcebergTable(table.folder, TableName()).table.metadata_location
    iceberg.replace(table.folder, {B: B.replace("aaaaaaaa", "bbbbbbbb")})  # again, after a crash
    iceberg.replace(table.folder, {"annotations/dt=2026-01-02/other.parquet": None})
    assert IcebergTable(table.folder, TableName()).table.metadata_location == version
    iceberg.add(table.folder)
    assert len(ids(table)) == 14


def test_a_file_without_rows_goes_and_so_may_all(table):
    iceberg.replace(table.folder, {B: None})
    assert ids(table) == [*range(5), *range(20, 25)]
    iceberg.replace(table.folder, {file_of("a", "2026-01-02"): None, file_of("c", "2026-01-04"): None})
    assert len(table.iceberg.scan().to_arrow()) == 0
    assert stated(table) == set()
    table.commit("d", range(50, 52))
    iceberg.add(table.folder)
    assert table.iceberg.scan().to_arrow()["image_id"].to_pylist() == [50, 51]


def test_what_only_earlier_snapshots_have_goes_with_them(table_anywhere):
    """Files that were compacted: the current snapshot still states what was deleted, so it is followed by one that does not."""
    table = table_anywhere
    iceberg.compact(table.folder, None)
    table.commit("late", range(15, 18), date="2026-01-03")
    iceberg.add(table.folder)
    iceberg.compact(table.folder, None)
    before = ids(table)
    assert B in iceberg.earlier_files(table.folder)
    iceberg.replace(table.folder, {B: None})
    assert ids(table) == before
    assert B not in iceberg.earlier_files(table.folder)
    assert "part-b-aaaaaaaa-00000.parquet" not in stated(table)
    assert [len(each.manifests(table.iceberg.io)) for each in table.iceberg.snapshots()][-1] > 0


@pytest.mark.parametrize("step", ["write", "expire", "remove"])
def test_a_run_that_is_added_meanwhile_stays_in_the_table(table, monkeypatch, step):
    """Before the new file is in the table, before snapshots expire, and before their manifests are removed."""
    late = []

    def adding(original):
        def change(*args):
            if not late:
                late.append(table.commit("late", range(90, 95)))
                iceberg.add(table.folder)
            return original(*args)

        return change

    name = {"write": "_replace_now", "expire": "History", "remove": "_remove_metadata"}[step]
    replaced = shortened(table)
    if step == "expire":
        iceberg_erase._replace_now(IcebergTable(table.folder, TableName()), replaced)
    monkeypatch.setattr(iceberg_erase, name, adding(getattr(iceberg_erase, name)))
    iceberg.replace(table.folder, replaced)
    assert ids(table) == [*range(5), 10, 12, 13, 14, *range(20, 25), *range(90, 95)]
    assert "part-b-aaaaaaaa-00000.parquet" not in stated(table)
    assert B not in iceberg.earlier_files(table.folder)


def test_a_driver_whose_commit_follows_an_expired_snapshot_makes_it_again(table):
    table.commit("late", range(90, 95))
    slow = IcebergTable(table.folder, TableName())
    iceberg.replace(table.folder, shortened(table))
    with pytest.raises(Exception) as error:  # noqa: PT011
        slow.add_missing()
    assert iceberg._may_pass(error.value)
    iceberg.add(table.folder)
    assert ids(table)[-5:] == [*range(90, 95)]


def test_commits_whose_answers_are_lost_are_not_made_again(table_anywhere, monkeypatch):
    table = table_anywhere

    def losing(commit):
        def commit_table(*args):
            commit(*args)
            raise CommitStateUnknownException("no answer came")

        return commit_table

    replaced = shortened(table)
    for catalog in (SqlCatalog, FileCatalog):
        monkeypatch.setattr(catalog, "commit_table", losing(catalog.commit_table))
    iceberg.replace(table.folder, replaced)
    assert ids(table) == [*range(5), 10, 12, 13, 14, *range(20, 25)]
    assert len(table.iceberg.snapshots()) == 2


def test_manifests_that_were_not_removed_are_by_the_same_call(table, monkeypatch):
    replaced = shortened(table)
    with monkeypatch.context() as patch:
        patch.setattr(iceberg_erase, "_remove_metadata", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            iceberg.replace(table.folder, replaced)
    table.commit("late", range(90, 95))
    iceberg.add(table.folder)
    iceberg.replace(table.folder, replaced)
    assert "part-b-aaaaaaaa-00000.parquet" not in stated(table)


def test_storage_that_fails_is_named(table, monkeypatch):
    monkeypatch.setattr(iceberg_erase, "History", lambda *_: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(StorageError, match="annotations can't be written as an Iceberg table: the disk is full"):
        iceberg.replace(table.folder, {B: None})


def test_schemes_are_those_of_the_runs(table):
    found = iceberg.schemes(table.folder)
    assert set(found) == {"polarity3", "valence"}
    assert found["polarity3"].labels == ["negative", "neutral", "positive"]


# --- what an erasure refuses


def delete_rows(made, content, rows, **about):
    """Add a file of deletes to the table, as Spark does: pyiceberg writes none."""
    table = made.iceberg
    path = f"{made.output}/annotations/dt=2026-01-03/{content.name}.parquet"
    pq.write_table(rows, path)

    class Writer(ManifestWriterV2):
        def content(self):
            return ManifestContent.DELETES

        @property
        def _meta(self):
            return super()._meta | {"content": "deletes"}

    class Append(_FastAppendFiles):
        def _process_manifests(self, manifests):
            writer = Writer(self.spec(0), self.schema(), self.new_manifest_output(), self.snapshot_id, self._compression)
            place = next(task.file.partition for task in table.scan().plan_files() if "part-b" in task.file.file_path)
            counts = {"record_count": len(rows), "file_size_in_bytes": Path(path).stat().st_size}
            file = DataFile.from_args(content=content, file_path=path, file_format=FileFormat.PARQUET, partition=place, **counts, **about)
            file.spec_id = 0
            with writer:
                writer.add(ManifestEntry.from_args(status=ManifestEntryStatus.ADDED, snapshot_id=self.snapshot_id, data_file=file))
            return [*manifests, writer.to_manifest_file()]

    with table.transaction() as transaction:
        Append(Operation.APPEND, transaction, table.io).commit()


def local(made):
    for run_id in "ab":
        made.commit(run_id, range(10), date="2026-01-03")
        iceberg.add(made.folder)


def test_rows_that_are_deleted_without_a_rewrite_are_to_be_compacted_first(made):
    local(made)
    places = pa.table({"file_path": [f"{made.output}/{B}"], "pos": pa.array([3], pa.int64())})
    delete_rows(made, DataFileContent.POSITION_DELETES, places)
    assert len(made.iceberg.scan().to_arrow()) == 19
    for refused in (lambda: iceberg.check_erasable(made.folder), lambda: iceberg.replace(made.folder, shortened(made, lost=1))):
        with pytest.raises(UserError, match=r"has files of which rows are deleted without a rewrite .*: run `ugrie compact` first"):
            refused()
    iceberg.compact(made.folder, None)
    iceberg.check_erasable(made.folder)
    iceberg.replace(made.folder, {B: None})
    assert len(made.iceberg.scan().to_arrow()) == 19
    assert B not in iceberg.earlier_files(made.folder)


def test_equality_deletes_are_refused(made):
    local(made)
    rows = pa.table({"run_id": ["a"]}, schema_to_pyarrow(made.iceberg.schema().select("run_id")))
    delete_rows(made, DataFileContent.EQUALITY_DELETES, rows, equality_ids=[made.iceberg.schema().find_field("run_id").field_id])
    with pytest.raises(UserError, match="has equality deletes, which pyiceberg can't apply: let the engine that made them rewrite"):
        iceberg.check_erasable(made.folder)


def test_branches_and_tags_are_to_be_removed_first(made):
    local(made)
    made.iceberg.manage_snapshots().create_tag(made.iceberg.current_snapshot().snapshot_id, "audit").commit()
    with pytest.raises(UserError, match=r"has branches or tags, whose snapshots can't expire \(audit\): remove them first"):
        iceberg.check_erasable(made.folder)


def test_a_format_that_pyiceberg_can_not_write_is_refused(made):
    local(made)
    path = Path(made.iceberg.metadata_location)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format-version": 3, "next-row-id": 0}))
    with pytest.raises(UserError, match="is of Iceberg's format version 3, and pyiceberg writes version 2: delete the rows by"):
        iceberg.check_erasable(made.folder)


def test_an_output_that_is_no_table_yet_has_nothing_to_erase(made):
    iceberg.check_erasable(made.folder)
    iceberg.replace(made.folder, {B: None})
    assert iceberg.schemes(made.folder) == {}
    assert iceberg.earlier_files(made.folder) == set()
