"""`ugrie compact`: small files of a Delta table."""

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pipeline.table_formats import delta
from tests.plugins.outputs import Made, in_order


@pytest.fixture
def table(made):
    """Three runs of one night and two of the next, of which the table has all but the last."""
    for i in range(5):
        made.commit(f"r{i}", range(10 * i, 10 * i + 5), date=f"2026-01-0{2 + i // 3}", schemes=["valence"] if i else ["polarity3"])
        if i < 4:
            delta.add(made.folder)
    return made


def now(made):
    """The rows of the table, and how many files each night has."""
    found = DeltaTable(f"{made.output}/annotations")
    dates = pa.table(found.get_add_actions(flatten=True))["partition.dt"]
    return in_order(found.to_pyarrow_table()), {str(each["values"]): each["counts"] for each in dates.value_counts().to_pylist()}


def test_each_nights_files_become_one_and_the_rows_are_the_same(command, table, capsys):
    assert command.run(["--output", table.output]) == 0
    assert capsys.readouterr().out == "5 files merged into 2, in 2 partitions\n"
    rows, files = now(table)
    assert rows.equals(table.rows())
    assert files == {"2026-01-02": 1, "2026-01-03": 1}
    assert command.run(["--output", table.output]) == 0
    assert capsys.readouterr().out == "nothing to compact\n"


def test_only_nights_before_a_date_are_gathered(command, table):
    assert command.run(["--output", table.output, "--before", "2026-01-03"]) == 0
    rows, files = now(table)
    assert rows.equals(table.rows())
    assert files == {"2026-01-02": 1, "2026-01-03": 2}


def test_no_file_that_was_there_is_removed(command, table):
    before = set(Path(table.output).rglob("*.parquet"))
    assert command.run(["--output", table.output]) == 0
    assert before < set(Path(table.output).rglob("*.parquet"))


def test_a_run_that_is_added_meanwhile_is_in_the_table_too(command, table, monkeypatch):
    opened, late = delta.DeltaLog.__init__, []

    def log(self, *args):
        opened(self, *args)
        if not self.missing() and not late:  # it is about to be compacted
            late.append(table.commit("late", range(90, 95)))
            delta.add(table.folder)

    monkeypatch.setattr(delta.DeltaLog, "__init__", log)
    assert command.run(["--output", table.output]) == 0
    rows, files = now(table)
    assert rows.equals(table.rows())
    assert files == {"2026-01-02": 2, "2026-01-03": 1}
    assert late


def test_a_compaction_that_died_leaves_the_table_as_it_was(command, table):
    delta.add(table.folder)
    folder = Path(table.output) / "annotations" / "dt=2026-01-02"
    left = folder / "part-00000-e076b2f1-5911-4575-84a1-201e8d0c9e91-c000.zstd.parquet"
    left.write_bytes(next(folder.glob("part-r0-*")).read_bytes())
    assert now(table)[0].equals(table.rows())
    assert command.run(["--output", table.output]) == 0
    assert now(table)[0].equals(table.rows())
    unlisted = DeltaTable(f"{table.output}/annotations").vacuum(retention_hours=0, enforce_retention_duration=False, full=True)
    assert str(left.relative_to(folder.parent)) in unlisted


def test_an_output_in_s3_is_compacted_as_well(command, s3, tmp_path):
    made = Made(f"s3://{s3.bucket}/{tmp_path.name}", s3.options)
    for run_id in ("a", "b"):
        made.commit(run_id, range(5))
        delta.add(made.folder)
    done = delta.compact(made.folder, None)
    assert (done["numFilesAdded"], done["numFilesRemoved"]) == (1, 2)
    assert made.shown().equals(made.rows())


def test_an_output_that_is_no_delta_table_is_left_as_it_is(command, made, capsys):
    made.commit("a", range(5))
    assert command.run(["--output", made.output]) == 2
    said = capsys.readouterr().err
    assert "/annotations is no Delta table: a run with --table-format delta makes it one" in said
    assert not (Path(made.output) / "annotations" / "_delta_log").exists()


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ([], "requires an argument"),
        (["--output", "out", "--before", "yesterday"], "--before"),
        (["--output", "out", "--storage-options", "{"], "--storage-options: not a JSON object"),
        (["--output", "s4://out"], "did you mean 's3://'"),
    ],
)
def test_what_is_wrong_is_one_line(command, tokens, line, capsys):
    assert command.run(tokens) == 2
    said = capsys.readouterr().err
    assert said.startswith("compact: ")
    assert said.count("\n") == 1
    assert line in said


def test_storage_that_fails_is_another_exit_code(command, table, capsys, monkeypatch):
    monkeypatch.setattr(delta.DeltaLog, "add_missing", lambda log: (_ for _ in ()).throw(OSError("the disk is full")))
    assert command.run(["--output", table.output]) == 1
    assert capsys.readouterr().err == f"compact: {table.output}/annotations can't be written as a Delta table: the disk is full\n"
