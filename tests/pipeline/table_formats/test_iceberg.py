"""The output as an Iceberg table."""

import datetime as dt
import json
import shutil
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.maintenance.vacuum import leftovers, remove
from pipeline.run import driver
from pipeline.run.driver import RunError, annotate
from pipeline.run.earlier import images_of
from pipeline.table import commit
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs
from pipeline.table.schema import Tables
from pipeline.table_formats import delta, iceberg, iceberg_catalog, iceberg_table, table_format
from tests.plugins.outputs import in_order
from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.scheme import load_scheme


def tables_of(made, schemes=("polarity3", "valence"), kept=None):
    return Tables(tuple(map(load_scheme, schemes)), crop_size=8, embedding_dim=None, tower="t", model=made.model, kept=kept)


def check(made, schemes=("polarity3", "valence"), kept=None, **settings):
    settings = {"input": "in", "output": made.output, "table_format": "iceberg", "storage_options": made.options} | settings
    table_format.check(AnnotateConfig(**settings), tables_of(made, schemes, kept))


def past(made, schemes=("polarity3", "valence"), now="2026-01-02T09:00:00+00:00", **settings):
    """The IDs that are annotated, and those that are to be retried."""
    config = AnnotateConfig(input="in", output=made.output, storage_options=made.options, **settings)
    return [
        ids.tolist()
        for ids in images_of(made.folder, config, tables_of(made, schemes), past_runs(made.folder), dt.datetime.fromisoformat(now))
    ]


def known(made, schemes=("polarity3", "valence")):
    return past(made, schemes, retry_days=0)[0]


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


# --- what its readers see


def test_its_rows_are_those_of_the_files_that_were_there_already(anywhere):
    anywhere.commit("a", range(25))
    anywhere.commit("b", range(100, 120), date="2026-01-03")
    anywhere.commit("none", [])
    fs, root = anywhere.place
    files = {name: fs.cat_file(name) for name in fs.find(root)}
    iceberg.add(anywhere.folder)
    assert anywhere.in_iceberg().equals(anywhere.rows())
    fs.invalidate_cache()
    own = ("/metadata/", "/iceberg.json", "/iceberg.db")
    assert {name: fs.cat_file(name) for name in fs.find(root) if not any(each in name for each in own)} == files
    (snapshot,) = anywhere.iceberg.snapshots()
    assert (snapshot.summary["ugrie.run-id"], snapshot.summary["added-records"]) == ("b,a", "45")


@pytest.mark.parametrize("compacted", [False, True])
def test_polars_pandas_and_duckdb_read_all_columns(made, compacted):
    made.commit("a", range(25))
    made.commit("b", range(100, 120), date="2026-01-03", schemes=["valence", "ekman6"])
    made.commit("c", range(30, 34), date="2026-01-03")
    iceberg.add(made.folder)
    if compacted:
        iceberg.compact(made.folder, None)
    table, rows = made.iceberg, made.rows()
    by_polars = pl.scan_iceberg(table)
    assert in_order(by_polars.collect().to_arrow().cast(table.scan().to_arrow().schema)).cast(rows.schema).equals(rows)
    assert by_polars.filter(run_id="b", dt=dt.date(2026, 1, 3)).collect().height == 20
    assert by_polars.filter(pl.col("ekman6").struct.field("score") > 0.5).collect().height == 18
    assert in_order(pa.Table.from_pandas(table.scan().to_pandas(), table.scan().to_arrow().schema)).cast(rows.schema).equals(rows)
    connection = table.scan().to_duckdb("found")
    assert isinstance(connection, duckdb.DuckDBPyConnection)
    by_date = connection.sql("SELECT dt, count(*), count(ekman6.label) FROM found GROUP BY dt ORDER BY dt").fetchall()
    assert by_date == [(dt.date(2026, 1, 2), 25, 0), (dt.date(2026, 1, 3), 24, 18)]


def test_a_real_runs_rows_are_in_it_too(finished, rows, tmp_path):
    shutil.copytree(finished.output, tmp_path, dirs_exist_ok=True)
    config = finished.config.model_copy(update={"output": str(tmp_path), "table_format": "iceberg"})
    assert annotate(config) == finished.record
    written = rows.table(tmp_path, finished.record)
    catalog = iceberg_catalog.open_catalog(OutputFolder(str(tmp_path), {}), iceberg_catalog.TableName())
    found = catalog.load_table("ugrie.annotations").scan().to_arrow()
    assert found.select(written.column_names).to_pylist() == written.to_pylist()
    assert set(found.column_names) == {*written.column_names, "dt"}
    before = contents(tmp_path)
    assert annotate(config) == finished.record
    assert contents(tmp_path) == before
    iceberg.compact(OutputFolder(str(tmp_path), {}), None)
    later = annotate(config.model_copy(update={"run_id": "later"}))
    assert (later.counts.known, later.counts.rows) == (40, 0)


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_are_found_by_every_column(made, compacted):
    """Files are left out by the minima and maxima that the table states: none may be wrong."""
    made.commit("a", range(25), schemes=["polarity3", "valence"])
    made.commit("b", range(25, 40), schemes=["valence"], date="2026-01-03")
    iceberg.add(made.folder)
    if compacted:
        iceberg.compact(made.folder, None)
    rows = made.rows()
    for name in ("image_id", "uri", "status", "error", "run_id", "width", "bytes", "annotated_at", "dt"):
        for value in {rows[name][0].as_py(), rows[name][-1].as_py(), rows[name][3].as_py()} - {None}:
            text = value.isoformat() if isinstance(value, dt.date) else value
            found = made.iceberg.scan(row_filter=f"{name} = {text!r}").to_arrow()
            assert len(found) == rows[name].to_pylist().count(value), (name, value)
    assert len(made.iceberg.scan(row_filter="error IS NULL AND dt = '2026-01-03'").to_arrow()) == 14


def test_the_table_states_labels_and_what_each_file_holds(made):
    made.commit("a", [5, -7, 2**62])
    iceberg.add(made.folder)
    table = made.iceberg
    assert json.loads(table.properties["ugrie.scheme.polarity3"])["labels"] == list(load_scheme("polarity3").label_names)
    assert table.schema().find_field("image_id").required
    assert not table.schema().find_field("polarity3").required
    assert int(table.properties["ugrie.run.a"]) == table.current_snapshot().snapshot_id
    (task,) = table.scan().plan_files()
    assert task.file.record_count == 3
    assert task.file.file_size_in_bytes == Path(task.file.file_path).stat().st_size
    image_id = table.schema().find_field("image_id").field_id
    assert task.file.lower_bounds[image_id] == (-7).to_bytes(8, "little", signed=True)
    assert task.file.upper_bounds[image_id] == (2**62).to_bytes(8, "little", signed=True)


def test_files_that_no_record_lists_are_not_in_it(made):
    made.commit("a", range(5))
    made.write("a", range(5), made.schema(["valence"]), attempt="bbbbbbbb")  # of a driver that was second
    made.write("dead", range(5, 9), made.schema(["valence"]))
    iceberg.add(made.folder)
    assert made.in_iceberg().equals(made.rows())


# --- each run once


def test_a_run_is_added_once_however_often_it_is_asked_for(made):
    made.commit("a", range(5))
    iceberg.add(made.folder)
    before = contents(made.output)
    for _ in range(2):
        iceberg.add(made.folder)
    made.commit("none", [])
    iceberg.add(made.folder)
    assert before.items() <= contents(made.output).items()
    assert len(made.iceberg.snapshots()) == 1


def test_a_run_whose_driver_died_before_it_was_in_the_iceberg_table_is_added_by_the_next(made):
    made.commit("a", range(5))
    iceberg.add(made.folder)
    made.commit("died", range(5, 9))
    made.commit("next", range(9, 12), date="2026-01-03")
    iceberg.add(made.folder)
    assert made.in_iceberg().equals(made.rows())
    assert [each.summary["ugrie.run-id"] for each in made.iceberg.snapshots()] == ["a", "next,died"]


def test_a_run_that_is_committed_and_not_in_the_iceberg_table_says_so_and_the_same_command_adds_it(made, monkeypatch):
    record = made.commit("r", range(5))
    monkeypatch.setattr(driver, "find_committed", lambda config: record)
    config = AnnotateConfig(input="in", output=made.output, run_id="r", table_format="iceberg")
    with monkeypatch.context() as patch:
        patch.setattr(iceberg, "ATTEMPTS", 1)
        full = CommitFailedException("the storage is full\nfor now")
        patch.setattr(iceberg_table.IcebergTable, "add_missing", lambda table: (_ for _ in ()).throw(full))
        with pytest.raises(
            RunError, match=r"^run r is committed, but not in the Iceberg table yet: .*: the storage is full for now; the same command .*$"
        ):
            annotate(config)
    assert annotate(config) == record
    assert made.in_iceberg().equals(made.rows())


# --- other runs in the same output


def test_runs_that_were_committed_before_there_was_a_table_are_added_by_one_commit(made):
    for i in range(12):
        made.commit(f"r{i}", range(i, i + 2), date=f"2026-01-{i + 1:02}", schemes=["valence"] if i < 9 else ["polarity2", "valence"])
    check(made)
    assert not (Path(made.output) / "annotations" / "metadata").exists()
    assert not (Path(made.output) / "iceberg.json").exists()
    iceberg.add(made.folder)
    assert made.in_iceberg().equals(made.rows())
    assert len(made.iceberg.snapshots()) == 1


def test_a_later_runs_other_schemes_are_columns_that_are_null_for_earlier_ones(made):
    made.commit("a", range(5), schemes=["polarity3"])
    iceberg.add(made.folder)
    check(made, schemes=("ekman6",))
    made.commit("b", range(5, 9), schemes=["ekman6"])
    iceberg.add(made.folder)
    assert made.in_iceberg().equals(made.rows())
    assert made.in_iceberg()["ekman6"].null_count == 5
    assert json.loads(made.iceberg.properties["ugrie.scheme.ekman6"])["labels"] == list(load_scheme("ekman6").label_names)


KEPT = pa.schema(
    {
        "post_id": pa.int64(),
        "size": pa.int32(),
        "price": pa.decimal128(12, 2),
        "posted_at": pa.timestamp("us", "UTC"),
        "seen_at": pa.timestamp("us"),
        "day": pa.date32(),
        "share": pa.float64(),
        "is_new": pa.bool_(),
        "code": pa.binary(),
        "tags": pa.list_(pa.field("element", pa.string())),
        "place": pa.struct({"name": pa.string(), "at": pa.struct({"lat": pa.float64(), "lon": pa.float32()})}),
        "counts": pa.map_(pa.string(), pa.int64()),
    }
)


@pytest.mark.parametrize("compacted", [False, True])
def test_kept_columns_of_all_types_come_back(made, compacted):
    """In files of runs and in compacted ones, beside a night that kept none."""
    made.commit("before", range(20, 23))
    iceberg.add(made.folder)
    check(made, kept=KEPT)
    made.commit("kept", range(5), schema=replace(tables_of(made), kept=KEPT).output, values=values)
    made.commit("empty", range(5, 9), schema=replace(tables_of(made), kept=KEPT).output)
    iceberg.add(made.folder)
    if compacted:
        assert iceberg.compact(made.folder, None)["numFilesRemoved"] == 3
    assert made.in_iceberg().equals(made.rows())
    assert made.in_iceberg()["price"].to_pylist()[1:4] == [Decimal("1.01"), Decimal("2.02"), Decimal("3.03")]
    for row_filter in (
        "price = 3.03",
        "posted_at = '2026-01-02T00:00:03.000003+00:00'",
        "day = '2026-01-04'",
        "share > 0.8 and share < 1.1",
    ):
        assert made.iceberg.scan(row_filter=row_filter).to_arrow()["image_id"].to_pylist() == [3], row_filter
    by_polars = pl.scan_iceberg(made.iceberg).filter(pl.col("place").struct.field("name") == "p3").collect()
    assert by_polars["counts"].to_list() == [{"k3": 3}]


def values(i):
    """The kept values of a row, null in one of them."""
    if i == 4:
        return {}
    return {
        "post_id": 2**40 + i,
        "size": -i,
        "price": Decimal(i * 100 + i) / 100,
        "posted_at": dt.datetime(2026, 1, 2, 0, 0, i, i, dt.UTC),
        "seen_at": dt.datetime(2026, 1, 2, 0, 0, i, i),
        "day": dt.date(2026, 1, 1 + i),
        "share": i / 3,
        "is_new": i % 2 == 0,
        "code": bytes([i]),
        "tags": [f"t{i}", None],
        "place": {"name": f"p{i}", "at": {"lat": i / 7, "lon": None}},
        "counts": {f"k{i}": i},
    }


# --- what a user gets wrong


def test_a_scheme_that_means_something_else_is_found_before_the_run(made):
    made.commit("a", range(5), schemes=["polarity3"])
    iceberg.add(made.folder)
    check(made)
    polarity3, valence = load_scheme("polarity3"), load_scheme("valence")
    other = polarity3.model_copy(update={"labels": polarity3.labels[::-1]})
    renamed = valence.model_copy(update={"name": "polarity3"})
    config = AnnotateConfig(input="in", output=made.output, table_format="iceberg")
    for scheme, what in ((other, "its scheme polarity3 has other labels"), (renamed, "its column polarity3 is of another type")):
        with pytest.raises(UserError, match=f"can't be added to the Iceberg table {made.output}/annotations: {what} than the table's"):
            table_format.check(config, Tables((scheme,), crop_size=8, embedding_dim=None, tower="t", model="m@123"))


def test_a_scheme_may_be_zero_shot_on_some_nights_and_trained_on_others(made):
    made.commit("a", range(5), schemes=["polarity3"])
    iceberg.add(made.folder)
    answers = {"polarity3": ZeroShot(load_scheme("polarity3"), "d", np.eye(3), np.zeros(3))}
    tables = Tables((load_scheme("polarity3"),), crop_size=8, embedding_dim=None, tower="t", model="m@123", zero_shot=answers)
    table_format.check(AnnotateConfig(input="in", output=made.output, table_format="iceberg"), tables)


@pytest.mark.parametrize(
    "kind",
    [
        pa.uint32(),
        pa.int8(),
        pa.float16(),
        pa.timestamp("ms"),
        pa.timestamp("us", "Europe/Warsaw"),
        pa.time32("s"),
        pa.list_(pa.int32(), 2),
        pa.decimal256(50, 2),
        pa.struct({"a": pa.list_(pa.uint8())}),
    ],
    ids=str,
)
def test_types_that_iceberg_lacks_are_named_before_the_run(made, kind):
    with pytest.raises(UserError, match=r"this run can't be added to an Iceberg table: it has no type for .*, of column x: cast it"):
        check(made, kept=pa.schema({"x": kind}))


def test_a_kept_column_of_another_type_than_the_tables_is_named(made):
    made.commit("kept", range(5), schema=replace(tables_of(made), kept=pa.schema({"x": pa.int32()})).output)
    iceberg.add(made.folder)
    for kind in (pa.int64(), pa.string(), pa.struct({"x": pa.int32()})):
        with pytest.raises(UserError, match="its column x is of another type than the table's"):
            check(made, kept=pa.schema({"x": kind}))


def test_pyiceberg_that_is_not_installed_is_named(made, monkeypatch):
    monkeypatch.setattr(iceberg_catalog, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"an Iceberg table needs pyiceberg: pip install 'ugrie\[iceberg\]'"):
        check(made)
    with pytest.raises(UserError, match="needs pyiceberg"):
        iceberg.add(made.folder)
    check(made, table_format="parquet")


# --- later nights


@pytest.mark.parametrize("expired", [False, True])
def test_what_was_annotated_before_is_known_from_compacted_files_too(made, expired):
    made.commit("a", range(5))
    made.commit("b", range(5, 9), schemes=["valence"])
    replace(made, model="other@1").commit("c", range(9, 14))
    made.commit("d", range(20, 25), date="2026-01-03")
    iceberg.add(made.folder)

    def everything():
        return {
            "": known(made),
            "valence": known(made, ["valence"]),
            "retry": past(made),
            "later": past(made, now="2026-01-05T09:00:00+00:00"),
        }

    expected = everything()
    assert expected == {
        "": [0, 1, 2, 3, 4, *range(20, 25)],
        "valence": [*range(9), *range(20, 25)],
        "retry": [[0, 1, 2, 4, 20, 21, 22, 24], [3, 23]],
        "later": [[0, 1, 2, 3, 4, 20, 21, 22, 24], [23]],  # the first run's failure is three days old
    }
    iceberg.compact(made.folder, None)
    if expired:
        made.iceberg.maintenance.expire_snapshots().older_than(dt.datetime.now() + dt.timedelta(days=1)).commit()
        assert len(made.iceberg.snapshots()) == 1
        assert len(list(remove(made.folder, leftovers(made.folder, dt.timedelta(0))))) == 3
    assert everything() == expected
    made.iceberg.delete("run_id = 'd'")  # whose rows are given up
    assert known(made) == list(range(5))
    made.commit("late", range(30, 32))  # which is not in the table yet
    assert known(made) == [*range(5), 30, 31]


def test_nothing_that_the_table_consists_of_is_taken_for_a_leftover(made):
    """Nor what an earlier snapshot does, even where the run's record is gone; what a dead run or a dead compaction wrote is."""
    made.commit("a", range(5))
    made.commit("b", range(5, 9))
    made.commit("c", range(9, 12), date="2026-01-03")
    iceberg.add(made.folder)
    iceberg.compact(made.folder, dt.date(2026, 1, 3))
    made.commit("dead", range(3))
    for run_id in ("b", "c", "dead"):
        (Path(made.output) / "runs" / f"{run_id}.json").unlink()
    folder = Path(made.output) / "annotations" / "dt=2026-01-02"
    shutil.copy(next(folder.glob("compacted-*")), folder / "compacted-0123abcd-00000.parquet")
    expected = made.in_iceberg()
    found = leftovers(made.folder, dt.timedelta(0))
    assert sorted(leftover.run_id for leftover in found) == ["compaction", "dead"]
    assert len(list(remove(made.folder, found))) == 2
    assert made.in_iceberg().equals(expected)
    first = made.iceberg.snapshots()[0].snapshot_id
    assert len(made.iceberg.scan(snapshot_id=first).to_arrow()) == 12
    assert leftovers(made.folder, dt.timedelta(0)) == []


def test_a_second_driver_that_tidies_up_leaves_the_table_whole(made):
    record = made.commit("a", range(5))
    iceberg.add(made.folder)
    second = made.write("a", range(5), made.schema(["valence"]), attempt="bbbbbbbb")
    commit.tidy(made.folder, record)
    assert not (Path(made.output) / second).exists()
    assert made.in_iceberg().equals(made.rows())


def test_an_output_is_a_table_of_one_format(made):
    made.commit("a", range(5))
    check(made, table_format="parquet")
    iceberg.add(made.folder)
    for other in ("parquet", "delta"):
        with pytest.raises(UserError, match="is an Iceberg table, whose readers would not see this run: give --table-format iceberg"):
            check(made, table_format=other)
    other = replace(made, output=made.output + "-delta")
    other.commit("a", range(5))
    delta.add(other.folder)
    with pytest.raises(UserError, match="is a Delta table, whose readers would not see this run: give --table-format delta"):
        check(other)
