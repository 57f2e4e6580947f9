"""The commits of a Delta table, by one driver and by several, and places where there can be none."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from pipeline.errors import UserError
from pipeline.table.output_folder import OutputFolder
from pipeline.table_formats import delta
from pipeline.table_formats.delta_log import DeltaLog
from tests.plugins.outputs import Made


def test_of_commits_that_bring_the_same_run_the_second_is_refused(anywhere):
    """Two drivers that have both seen that it is missing, in a table that is there and in one that is not."""
    for run_id in ("a", "b"):
        anywhere.commit(run_id, range(5))
        first, second = (DeltaLog(anywhere.folder) for _ in range(2))
        first.add_missing()
        with pytest.raises(DeltaError):
            second.add_missing()
    assert anywhere.shown().equals(anywhere.rows())


def test_drivers_that_add_at_once_add_each_run_once(anywhere):
    anywhere.commit("first", range(5))
    for number in range(2):  # there is no table yet, and there is one
        runs = [f"{number}-{i}" for i in range(4)]
        with ThreadPoolExecutor(4) as pool:

            def night(run_id):
                anywhere.commit(run_id, range(3), schemes=["valence", "polarity3"] if run_id.startswith("0") else ["valence", "ekman6"])
                delta.add(anywhere.folder)

            list(pool.map(night, runs))
    assert anywhere.shown().equals(anywhere.rows())
    assert len(anywhere.shown()) == 5 + 2 * 4 * 3


def test_a_commit_whose_answer_is_lost_is_not_made_again(anywhere, monkeypatch):
    anywhere.commit("a", range(5))
    add_missing, answers = DeltaLog.add_missing, []

    def lost(log):
        add_missing(log)
        answers.append(None)
        if len(answers) == 1:
            raise CommitFailedError("no answer came")

    monkeypatch.setattr(DeltaLog, "add_missing", lost)
    delta.add(anywhere.folder)
    assert len(answers) == 2
    assert anywhere.shown().equals(anywhere.rows())
    assert anywhere.delta.version() == 0


def test_columns_that_a_driver_added_before_it_died_are_taken(made, monkeypatch):
    made.commit("a", range(5), schemes=["valence"])
    delta.add(made.folder)
    made.commit("b", range(5, 9), schemes=["valence", "ekman6"])
    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            delta.add(made.folder)
    assert "ekman6" in made.shown().column_names
    assert len(made.shown()) == 5
    delta.add(made.folder)
    assert made.shown().equals(made.rows())


def test_a_run_whose_files_others_have_replaced_is_not_added_again(made):
    """By compaction, and by a delete; also once the log is a checkpoint."""
    made.commit("a", range(5))
    made.commit("b", range(5, 9))
    delta.add(made.folder)
    expected = made.shown()
    delta.compact(made.folder, None)
    made.delta.delete("run_id = 'b' AND image_id = 6")
    made.delta.create_checkpoint()
    version = made.delta.version()
    delta.add(made.folder)
    assert made.delta.version() == version
    assert made.shown().equals(expected.filter(pc.not_equal(expected["image_id"], 6)))


def test_a_delta_table_of_another_kind_is_refused(made):
    DeltaTable.create(f"{made.output}/annotations", pa.schema([pa.field("x", pa.int64())]))
    with pytest.raises(UserError, match="is a Delta table of another kind, not partitioned by dt"):
        DeltaLog(made.folder)


def test_a_log_that_is_broken_is_named(made):
    made.commit("a", range(5))
    delta.add(made.folder)
    (Path(made.output) / "annotations/_delta_log/00000000000000000000.json").write_text("{")
    with pytest.raises(UserError, match=f"^{made.output}/annotations can't be read as a Delta table: .*$") as error:
        DeltaLog(made.folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["ein Ordner", "größer", "a#b?c", "100%"])
def test_a_path_may_have_all_kinds_of_letters(tmp_path, name):
    made = Made(str(tmp_path / name))
    made.commit("a", range(5))
    delta.add(made.folder)
    assert made.shown().equals(made.rows())


@pytest.mark.parametrize("name", ["a%20b", "a\\b"])
def test_a_path_that_deltalake_would_take_for_another_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="can't be a Delta table: deltalake takes no path with"):
        DeltaLog(OutputFolder(str(tmp_path / name), {}))


def test_a_file_that_is_gone_before_it_was_added_is_named(made):
    record = made.commit("a", range(5))
    (Path(made.output) / record.files[0]).unlink()
    log = DeltaLog(made.folder)
    with pytest.raises(UserError, match=r"part-a-aaaaaaaa-00000.parquet can't be read \(.*\), and a run record lists it"):
        log.add_missing()


def test_storage_that_deltalake_does_not_know_is_named():
    made = Made("memory://delta-test")
    with pytest.raises(UserError, match=r"memory://delta-test/annotations can't be a Delta table: deltalake reaches local disks, s3, .*"):
        DeltaLog(made.folder)
