"""The commits of an Iceberg table, by one driver and by several."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, ValidationException

from pipeline.errors import UserError
from pipeline.table_formats import iceberg
from pipeline.table_formats.file_catalog import FileCatalog
from pipeline.table_formats.iceberg_catalog import TableName
from pipeline.table_formats.iceberg_table import IcebergTable
from tests.plugins.outputs import Made

OWN = TableName()
CATALOGS = (SqlCatalog, FileCatalog)


def snapshots(made):
    """What each snapshot did, and for which runs."""
    return [(str(each.summary.operation.value), each.summary["ugrie.run-id"]) for each in made.iceberg.snapshots()]


def test_of_commits_that_bring_the_same_run_the_second_is_refused(anywhere):
    """Two drivers that have both seen that it is missing, in a table that is there and in one that is not."""
    for run_id in ("a", "b"):
        anywhere.commit(run_id, range(5))
        first, second = (IcebergTable(anywhere.folder, OWN) for _ in range(2))
        first.add_missing()
        with pytest.raises((CommitFailedException, ValidationException)):
            second.add_missing()
    assert anywhere.in_iceberg().equals(anywhere.rows())
    assert snapshots(anywhere) == [("append", "a"), ("append", "b")]


def test_drivers_that_add_at_once_add_each_run_once(anywhere):
    anywhere.commit("first", range(5))
    for number in range(2):  # there is no table yet, and there is one
        runs = [f"{number}-{i}" for i in range(4)]
        with ThreadPoolExecutor(4) as pool:

            def night(run_id):
                anywhere.commit(run_id, range(3), schemes=["valence", "polarity3"] if run_id.startswith("0") else ["valence", "ekman6"])
                iceberg.add(anywhere.folder)

            list(pool.map(night, runs))
    assert anywhere.in_iceberg().equals(anywhere.rows())
    assert len(anywhere.in_iceberg()) == 5 + 2 * 4 * 3
    named = [run_id for _, run_ids in snapshots(anywhere) for run_id in run_ids.split(",")]
    assert sorted(named) == sorted(["first", *(f"{number}-{i}" for number in range(2) for i in range(4))])


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("error", [CommitStateUnknownException, CommitFailedException])
def test_a_commit_whose_answer_is_lost_is_not_made_again(anywhere, monkeypatch, error, there):
    """Whatever the catalog says then: that it does not know, or, since the request was sent again, that another commit was first."""
    if there:
        anywhere.commit("first", range(30, 33))
        iceberg.add(anywhere.folder)
    anywhere.commit("a", range(5))
    lost = []

    def losing(commit):
        def commit_table(self, table, requirements, updates):
            answer = commit(self, table, requirements, updates)
            if not lost:
                lost.append(answer)
                raise error("no answer came")
            return answer

        return commit_table

    for catalog in CATALOGS:
        monkeypatch.setattr(catalog, "commit_table", losing(catalog.commit_table))
    iceberg.add(anywhere.folder)
    assert len(lost) == 1
    assert anywhere.in_iceberg().equals(anywhere.rows())
    assert snapshots(anywhere)[there:] == [("append", "a")]


@pytest.mark.parametrize("there", [False, True])
def test_a_driver_that_dies_before_its_commit_leaves_the_table_as_it_was(anywhere, monkeypatch, there):
    """Nothing of it is seen, not even its columns; the next driver adds the run."""
    if there:
        anywhere.commit("first", range(30, 33), schemes=["valence"])
        iceberg.add(anywhere.folder)
        before = anywhere.in_iceberg()
    anywhere.commit("a", range(5), schemes=["valence", "ekman6"])
    with monkeypatch.context() as patch:
        for catalog in CATALOGS:
            patch.setattr(catalog, "commit_table", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            iceberg.add(anywhere.folder)
    if there:
        assert anywhere.in_iceberg().equals(before)
    else:
        assert IcebergTable(anywhere.folder, OWN).table is None
    iceberg.add(anywhere.folder)
    assert anywhere.in_iceberg().equals(anywhere.rows())


def test_a_run_whose_files_others_have_replaced_is_not_added_again(made):
    """By compaction, and by a delete; also once its snapshot has expired."""
    made.commit("a", range(5))
    made.commit("b", range(5, 9))
    iceberg.add(made.folder)
    expected = made.in_iceberg()
    iceberg.compact(made.folder, None)
    table = made.iceberg
    table.delete("run_id = 'b' AND image_id = 6")
    table.maintenance.expire_snapshots().by_ids([each.snapshot_id for each in table.snapshots()[:-1]]).commit()
    assert len(made.iceberg.snapshots()) == 1
    version = made.iceberg.metadata_location
    iceberg.add(made.folder)
    assert made.iceberg.metadata_location == version
    assert made.in_iceberg().equals(expected.filter(pc.not_equal(expected["image_id"], 6)))


def test_the_manifests_of_many_nights_are_merged(made):
    """Those of a hundred commits are one, by default."""
    for number in range(5):
        made.commit(f"r{number}", range(3 * number, 3 * number + 3))
        iceberg.add(made.folder)
        if not number:
            with made.iceberg.transaction() as transaction:
                transaction.set_properties({"commit.manifest.min-count-to-merge": "3"})
    table = made.iceberg
    assert len(table.current_snapshot().manifests(table.io)) < 4
    assert made.in_iceberg().equals(made.rows())


def test_an_iceberg_table_of_another_kind_is_refused(made):
    iceberg.add(made.folder)  # no run, so nothing is made
    assert not Path(made.output).exists()
    made.commit("a", range(5))
    iceberg.add(made.folder)
    with made.iceberg.update_spec() as update:
        update.add_identity("run_id")
    with pytest.raises(UserError, match="is an Iceberg table of another kind, not partitioned by dt"):
        IcebergTable(made.folder, OWN)


def test_metadata_that_is_broken_is_named(made):
    made.commit("a", range(5))
    iceberg.add(made.folder)
    Path(made.iceberg.metadata_location).write_text("{")
    with pytest.raises(UserError, match=f"^{made.output}/annotations can't be read as an Iceberg table: .*$") as error:
        IcebergTable(made.folder, OWN)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["ein Ordner", "größer", "a#b?c", "100%", "a%20b", "a\\b"])
def test_a_path_may_have_all_kinds_of_letters(tmp_path, name):
    made = Made(str(tmp_path / name))
    for run_id in ("a", "b"):
        made.commit(run_id, range(5))
        iceberg.add(made.folder)
    found = IcebergTable(made.folder, OWN)
    assert len(found.table.scan().to_arrow()) == 10
    assert found.present == {file for run_id in "ab" for file in [f"annotations/dt=2026-01-02/part-{run_id}-aaaaaaaa-00000.parquet"]}


def test_a_file_that_is_gone_before_it_was_added_is_named(made):
    record = made.commit("a", range(5))
    (Path(made.output) / record.files[0]).unlink()
    table = IcebergTable(made.folder, OWN)
    with pytest.raises(UserError, match=r"part-a-aaaaaaaa-00000.parquet can't be read \(.*\), and a run record lists it"):
        table.add_missing()


def test_storage_of_any_kind_holds_a_table():
    made = Made("memory://iceberg-test")
    for run_id in ("a", "b"):
        made.commit(run_id, range(5))
        iceberg.add(made.folder)
    assert len(IcebergTable(made.folder, OWN).table.scan().to_arrow()) == 10
    assert pa.types.is_date32(IcebergTable(made.folder, OWN).table.scan().to_arrow()["dt"].type)
