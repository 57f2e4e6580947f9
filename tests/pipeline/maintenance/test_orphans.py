"""Warnings about files and runs that are not committed."""

from pathlib import Path

import pytest

from pipeline.config import AnnotateConfig
from pipeline.maintenance.orphans import warn
from pipeline.table_formats import delta

FOLDER = "annotations/dt=2026-01-02"


@pytest.fixture
def said(made, caplog):
    """Return the warnings before a run r into the output."""

    def look(run_id="r", date="2026-01-02"):
        caplog.clear()
        warn(made.folder, AnnotateConfig(input="in", output=made.output, run_id=run_id, date=date))
        return [record.getMessage() for record in caplog.records]

    return look


def put(made, name):
    path = Path(made.output) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_a_new_output_and_one_of_committed_runs_need_no_word(made, said):
    assert said() == []
    made.commit("a", range(5))
    put(made, f"{FOLDER}/_SUCCESS")
    put(made, f"{FOLDER}/.part-a-aaaaaaaa-00000.parquet.{'0' * 32}")
    put(made, f"{FOLDER}/notes.txt")
    assert said() == []


def test_a_file_that_no_run_wrote_is_named_with_what_to_do(made, said):
    made.commit("a", range(5))
    put(made, f"{FOLDER}/mine.parquet")
    (line,) = said()
    assert line == (f"no run wrote the file {FOLDER}/mine.parquet. Readers that glob the table read it too: move it out of annotations/")
    assert said(date="2026-01-03") == []


def test_a_run_that_was_not_finished_is_named_with_its_files_and_counts_for_nothing(made, said):
    made.commit("a", range(5))
    put(made, "_work/a/plan.json")  # which the run itself tidies up
    put(made, "_work/dead/plan.json")
    made.write("dead", range(9), made.schema(["valence"]))
    run, file = said()
    assert run.startswith("not committed: run dead. It is running, or died: ")
    assert f"no run record lists the file {FOLDER}/part-dead-aaaaaaaa-00000.parquet. " in file
    assert "`ugrie clean`" in file
    assert said(run_id="dead") == [file]


def test_what_a_driver_that_did_not_commit_wrote_is_named(made, said):
    made.commit("a", range(5))
    made.write("a", range(5), made.schema(["valence"]), attempt="bbbbbbbb")
    (line,) = said()
    assert f"{FOLDER}/part-a-bbbbbbbb-00000.parquet" in line


def test_of_many_the_first_are_named(made, said):
    for i in range(12):
        put(made, f"_work/run-{i:02}/plan.json")
    (line,) = said()
    assert "run-04 and 7 more" in line
    assert "run-05" not in line


def test_in_a_delta_table_files_that_its_log_does_not_list_harm_nobody(made, said):
    for run_id in ("a", "b"):
        made.commit(run_id, range(5))
    delta.add(made.folder)
    delta.compact(made.folder, None)
    put(made, f"{FOLDER}/mine.parquet")
    assert said() == []


def test_no_other_partition_is_listed(made, said, monkeypatch):
    for day in range(1, 20):
        made.commit(f"r{day}", range(2), date=f"2026-01-{day:02}")
    fs, root = made.place
    listed, ls = [], type(fs).ls
    monkeypatch.setattr(type(fs), "ls", lambda fs, path, **kwargs: listed.append(path) or ls(fs, path, **kwargs))
    assert said() == []
    assert set(listed) <= {f"{root}/runs", f"{root}/{FOLDER}"}
