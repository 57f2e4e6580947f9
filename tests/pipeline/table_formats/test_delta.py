"""The output as a Delta table."""

import datetime as dt
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.maintenance.vacuum import leftovers, remove
from pipeline.run import driver
from pipeline.run.driver import RunError, annotate
from pipeline.run.earlier import images_of
from pipeline.run.plan import prepare
from pipeline.table import commit
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs
from pipeline.table.schema import Tables
from pipeline.table_formats import delta, delta_log
from pipeline.table_formats.delta_storage import storage_options
from tests.plugins.outputs import in_order
from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.scheme import load_scheme


def check(made, schemes=("polarity3", "valence"), **settings):
    tables = Tables(tuple(map(load_scheme, schemes)), crop_size=8, embedding_dim=None, tower="t", model=made.model)
    settings = {"input": "in", "output": made.output, "table_format": "delta", "storage_options": made.options} | settings
    delta.check(AnnotateConfig(**settings), tables)


def past(made, schemes=("polarity3", "valence"), now="2026-01-02T09:00:00+00:00", **settings):
    """The IDs that are annotated, and those that are to be retried."""
    config = AnnotateConfig(input="in", output=made.output, storage_options=made.options, **settings)
    tables = Tables(tuple(map(load_scheme, schemes)), crop_size=8, embedding_dim=None, tower="t", model=made.model)
    return [ids.tolist() for ids in images_of(made.folder, config, tables, past_runs(made.folder), dt.datetime.fromisoformat(now))]


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
    delta.add(anywhere.folder)
    assert anywhere.shown().equals(anywhere.rows())
    fs.invalidate_cache()
    assert {name: fs.cat_file(name) for name in fs.find(root) if "/_delta_log/" not in name} == files
    options = {"storage_options": storage_options(fs)} if anywhere.options else {}
    read = pl.scan_delta(anywhere.delta.table_uri, **options)
    assert in_order(read.collect().to_arrow().cast(anywhere.delta.to_pyarrow_table().schema)).equals(anywhere.rows())
    assert read.filter(run_id="b", dt=dt.date(2026, 1, 3)).collect().height == 20
    assert anywhere.delta.version() == 0


def test_it_is_read_as_the_docs_say(made):
    made.commit("a", range(25))
    delta.add(made.folder)
    page = (Path(__file__).parents[3] / "docs" / "tables.md").read_text().partition("## Delta")[2]
    reading, vacuum = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    found: dict[str, Any] = {}
    exec(reading.replace("OUTPUT", made.output), found)
    assert found["table"].num_rows == found["rows"].height == 22
    assert eval(vacuum.replace("OUTPUT", made.output), {"deltalake": deltalake}) == []


def test_a_real_runs_rows_are_in_it_too(finished, rows, tmp_path):
    shutil.copytree(finished.output, tmp_path, dirs_exist_ok=True)
    config = finished.config.model_copy(update={"output": str(tmp_path), "table_format": "delta"})
    assert annotate(config) == finished.record
    written = rows.table(tmp_path, finished.record)
    found = DeltaTable(tmp_path / "annotations").to_pyarrow_table()
    assert found.select(written.column_names).to_pylist() == written.to_pylist()
    assert {field.name: field.type for field in found.schema} == {f.name: f.type for f in written.schema} | {"dt": pa.date32()}
    before = contents(tmp_path)
    assert annotate(config) == finished.record
    assert contents(tmp_path) == before
    delta.compact(OutputFolder(str(tmp_path), {}), None)
    later = annotate(config.model_copy(update={"run_id": "later"}))
    assert (later.counts.known, later.counts.rows) == (40, 0)


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_are_found_by_every_column(made, compacted):
    """Whose columns are too many to be all indexed."""
    schemes = ("polarity3", "polarity2", "ekman6", "ekman7", "mikels8", "plutchik8", "emotic26", "artemis9", "goemotions27", "valence")
    made.commit("a", range(25), schemes=schemes)
    made.commit("b", range(25, 40), schemes=["valence"])
    delta.add(made.folder)
    if compacted:
        delta.compact(made.folder, None)
    wanted = (ds.field("status") == "ok", ds.field("error") == "not read", ds.field("run_id") == "a", ds.field("image_id") > 30)
    found = [made.delta.to_pyarrow_dataset().to_table(filter=each).num_rows for each in wanted]
    assert found == [made.rows().filter(each).num_rows for each in wanted] == [36, 4, 25, 9]
    by_polars = pl.scan_delta(f"{made.output}/annotations")
    assert by_polars.filter(pl.col("ekman6").struct.field("score") > 0.5).collect().height == 22
    assert by_polars.filter(pl.col("image_id") > 30, run_id="b").collect().height == 9


def test_the_log_states_labels_and_what_each_file_holds(made):
    made.commit("a", [5, -7, 2**62])
    delta.add(made.folder)
    fields = {field.name: field for field in made.delta.schema().fields}
    assert json.loads(fields["polarity3"].metadata["ugrie"])["labels"] == list(load_scheme("polarity3").label_names)
    assert not fields["image_id"].nullable
    assert fields["polarity3"].nullable
    (stated,) = pa.table(made.delta.get_add_actions(flatten=True)).to_pylist()
    assert stated["num_records"] == 3
    assert stated["size_bytes"] == (Path(made.output) / "annotations" / stated["path"]).stat().st_size
    assert stated["partition.dt"] == dt.date(2026, 1, 2)


def test_files_that_no_record_lists_are_not_in_it(made):
    made.commit("a", range(5))
    made.write("a", range(5), made.schema(["valence"]), attempt="bbbbbbbb")  # of a driver that was second
    made.write("dead", range(5, 9), made.schema(["valence"]))
    delta.add(made.folder)
    assert made.shown().equals(made.rows())


# --- each run once


def test_a_run_is_added_once_however_often_it_is_asked_for(made):
    made.commit("a", range(5))
    for _ in range(3):
        delta.add(made.folder)
    assert made.delta.version() == 0
    made.commit("none", [])
    delta.add(made.folder)
    assert made.delta.version() == 0


def test_a_run_whose_driver_died_before_it_was_in_the_delta_table_is_added_by_the_next(made):
    made.commit("a", range(5))
    delta.add(made.folder)
    made.commit("died", range(5, 9))
    made.commit("next", range(9, 12), date="2026-01-03")
    delta.add(made.folder)
    assert made.shown().equals(made.rows())
    assert made.delta.version() == 1


def test_a_run_that_is_committed_and_not_in_the_delta_table_says_so_and_the_same_command_adds_it(made, monkeypatch):
    record = made.commit("r", range(5))
    monkeypatch.setattr(driver, "find_committed", lambda config: record)
    config = AnnotateConfig(input="in", output=made.output, run_id="r", table_format="delta")
    with monkeypatch.context() as patch:
        patch.setattr(delta, "ATTEMPTS", 1)
        patch.setattr(
            delta_log.DeltaLog, "add_missing", lambda log: (_ for _ in ()).throw(CommitFailedError("the storage is full\nfor now"))
        )
        with pytest.raises(
            RunError, match=r"^run r is committed, but not in the Delta table yet: .*: the storage is full for now; the same command .*$"
        ):
            annotate(config)
    assert annotate(config) == record
    assert made.shown().equals(made.rows())


# --- other runs in the same output


def test_runs_that_were_committed_before_there_was_a_table_are_added_by_one_commit(made):
    for i in range(30):
        made.commit(f"r{i}", range(i, i + 2), date=f"2026-01-{i + 1:02}", schemes=["valence"] if i < 9 else ["polarity2", "valence"])
    check(made)
    assert not (Path(made.output) / "annotations" / "_delta_log").exists()
    delta.add(made.folder)
    assert made.shown().equals(made.rows())
    assert made.delta.version() == 0


def test_a_later_runs_other_schemes_are_columns_that_are_null_for_earlier_ones(made):
    made.commit("a", range(5), schemes=["polarity3"])
    delta.add(made.folder)
    check(made, schemes=("ekman6",))
    made.commit("b", range(5, 9), schemes=["ekman6"])
    delta.add(made.folder)
    assert made.shown().equals(made.rows())
    assert made.shown()["ekman6"].null_count == 5
    fields = {field.name: field.metadata for field in made.delta.schema().fields}
    assert json.loads(fields["ekman6"]["ugrie"])["labels"] == list(load_scheme("ekman6").label_names)


# --- what a user gets wrong


def test_a_scheme_that_means_something_else_is_found_before_the_run(made):
    made.commit("a", range(5), schemes=["polarity3"])
    delta.add(made.folder)
    check(made)
    polarity3, valence = load_scheme("polarity3"), load_scheme("valence")
    other = polarity3.model_copy(update={"labels": polarity3.labels[::-1]})
    renamed = valence.model_copy(update={"name": "polarity3"})
    config = AnnotateConfig(input="in", output=made.output, table_format="delta")
    for scheme, what in ((other, "its scheme polarity3 has other labels"), (renamed, "its column polarity3 is of another type")):
        with pytest.raises(UserError, match=f"can't be added to the Delta table {made.output}/annotations: {what} than the table's"):
            delta.check(config, Tables((scheme,), crop_size=8, embedding_dim=None, tower="t", model="m@123"))


def test_a_scheme_may_be_zero_shot_on_some_nights_and_trained_on_others(made):
    made.commit("a", range(5), schemes=["polarity3"])
    delta.add(made.folder)
    answers = {"polarity3": ZeroShot(load_scheme("polarity3"), "d", np.eye(3), np.zeros(3))}
    tables = Tables((load_scheme("polarity3"),), crop_size=8, embedding_dim=None, tower="t", model="m@123", zero_shot=answers)
    delta.check(AnnotateConfig(input="in", output=made.output, table_format="delta"), tables)


def test_embeddings_are_refused_this_runs_and_those_of_earlier_ones(made):
    with pytest.raises(UserError, match="keep_embeddings: a Delta table has no type for embeddings"):
        check(made, keep_embeddings=True)
    made.commit("a", range(5), keep_embeddings=True)
    with pytest.raises(UserError, match=r"part-a-aaaaaaaa-00000.parquet holds embeddings, .*: choose another output"):
        check(made)


def test_deltalake_that_is_not_installed_is_named(made, monkeypatch):
    monkeypatch.setattr(delta_log, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"a Delta table needs deltalake: pip install 'ugrie\[delta\]'"):
        check(made)
    with pytest.raises(UserError, match="needs deltalake"):
        delta.add(made.folder)
    check(made, table_format="parquet")


def test_a_run_whose_rows_a_delta_tables_readers_would_not_see_is_refused(made):
    made.commit("a", range(5))
    check(made, table_format="parquet")
    delta.add(made.folder)
    with pytest.raises(UserError, match="is a Delta table, whose readers would not see this run: give --table-format delta"):
        check(made, table_format="parquet")


def test_a_plan_for_a_delta_table_finds_what_is_wrong_and_writes_nothing(corpus, tmp_path):
    config = AnnotateConfig(input=str(corpus.folder), output=str(tmp_path), table_format="delta", keep_embeddings=True)
    with pytest.raises(UserError, match="keep_embeddings"):
        prepare(config)
    assert list(tmp_path.iterdir()) == []


# --- later nights


@pytest.mark.parametrize("vacuumed", [False, True])
def test_what_was_annotated_before_is_known_from_compacted_files_too(made, vacuumed):
    made.commit("a", range(5))
    made.commit("b", range(5, 9), schemes=["valence"])
    replace(made, model="other@1").commit("c", range(9, 14))
    made.commit("d", range(20, 25), date="2026-01-03")
    delta.add(made.folder)

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
    delta.compact(made.folder, None)
    if vacuumed:
        assert len(made.delta.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)) >= 3
    assert everything() == expected
    made.delta.delete("run_id = 'd'")  # whose rows are given up
    assert known(made) == list(range(5))
    made.commit("late", range(30, 32))  # which is not in the table yet
    assert known(made) == [*range(5), 30, 31]


def test_nothing_that_the_table_consists_of_is_taken_for_a_leftover(made):
    """Even where its run's record is gone; what a dead run wrote is."""
    made.commit("a", range(5))
    made.commit("b", range(5, 9))
    made.commit("c", range(9, 12), date="2026-01-03")
    delta.add(made.folder)
    delta.compact(made.folder, dt.date(2026, 1, 3))
    made.commit("dead", range(3))
    for run_id in ("c", "dead"):
        (Path(made.output) / "runs" / f"{run_id}.json").unlink()
    expected = made.shown()
    found = leftovers(made.folder, dt.timedelta(0))
    assert [leftover.run_id for leftover in found] == ["dead"]
    assert len(list(remove(made.folder, found))) == 1
    assert made.shown().equals(expected)
    assert {record.run_id for record in past_runs(made.folder)} == {"a", "b"}


def test_a_second_driver_that_tidies_up_leaves_the_table_whole(made):
    record = made.commit("a", range(5))
    delta.add(made.folder)
    second = made.write("a", range(5), made.schema(["valence"]), attempt="bbbbbbbb")
    commit.tidy(made.folder, record)
    assert not (Path(made.output) / second).exists()
    assert made.shown().equals(made.rows())
