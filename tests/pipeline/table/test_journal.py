"""The journal of an erasure: one is at work at a time, and what it replaces is left alone."""

import threading
import time

import pytest

from pipeline.errors import StorageError, UserError
from pipeline.table import journal
from pipeline.table.commit import tidy
from pipeline.table.journal import Unit, alone, replaced_files
from pipeline.table.output_folder import OutputFolder
from tests.pipeline.table.test_commit import record_of

OLD, NEW = (f"annotations/dt=2026-01-02/part-r-{attempt * 8}-00000.parquet" for attempt in "ab")


@pytest.fixture
def output(tmp_path):
    return OutputFolder(str(tmp_path), {})


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(journal, "DEAD_SECONDS", 0.2)


def died(output):
    """Leave the journal of a process that was killed."""
    owner = journal.Journal(output, 1, "ugrie clean --erase")
    owner.unit = Unit("r", {OLD: NEW})
    owner.pages = ["runs/r.html"]
    output.write(journal._path(1), owner._json())


def test_it_is_there_while_an_erasure_is_at_work(output):
    with alone(output, "one") as (own, before, pages):
        assert (before.files, pages, replaced_files(output)) == ({}, [], set())
        own.note(Unit("r", {OLD: NEW, "x": None}), [])
        assert replaced_files(output) == {OLD, NEW, "x"}
        own.note(Unit(), [])
    assert output.names(journal.FOLDER) == []


def test_a_second_one_is_refused_while_the_first_gives_signs_of_life(output, soon, monkeypatch):
    monkeypatch.setattr(journal, "BEAT_SECONDS", 0.02)
    with (
        alone(output, "ugrie clean --erase"),
        pytest.raises(UserError, match=r"^ugrie clean --erase of .* is at work on .*: give the command again when"),
        alone(output, "ugrie compact"),
    ):
        pass
    with alone(output, "ugrie compact"):
        pass


def test_after_a_dead_one_the_next_knows_what_it_was_replacing(output, soon):
    died(output)
    begun = time.monotonic()
    with alone(output, "next") as (own, before, pages):
        assert time.monotonic() - begun >= 0.2
        assert (before.run_id, before.files, pages, own.number) == ("r", {OLD: NEW}, ["runs/r.html"], 2)
        assert replaced_files(output) == {OLD, NEW}  # until the next has dealt with them
        own.note(Unit(), [])
    assert output.names(journal.FOLDER) == []


def test_one_that_ends_with_an_error_needs_no_waiting(output):
    def fail():
        with alone(output, "first") as (own, _, _):
            own.note(Unit("r", {OLD: NEW}), [])
            raise StorageError("full")

    with pytest.raises(StorageError):
        fail()
    begun = time.monotonic()
    with alone(output, "next") as (_, before, _):
        assert before.files == {OLD: NEW}
    assert time.monotonic() - begun < 10


def test_of_two_that_follow_a_dead_one_at_once_one_is_at_work(output, monkeypatch):
    monkeypatch.setattr(journal, "DEAD_SECONDS", 2.0)
    monkeypatch.setattr(journal, "BEAT_SECONDS", 0.02)
    died(output)
    entered, refused = [], threading.Event()
    barrier = threading.Barrier(2)

    def follow():
        barrier.wait()
        try:
            with alone(output, "next") as (own, before, _):
                entered.append(before.files)
                refused.wait(30)
                own.note(Unit(), [])
        except UserError:
            refused.set()

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (entered, refused.is_set()) == ([{OLD: NEW}], True)


def test_one_that_was_stopped_while_another_took_over_changes_nothing_more(output):
    with alone(output, "stopped") as (own, _, _):
        output.write(journal._path(2), own._json())
        with pytest.raises(StorageError, match="another may be at work"):
            own.note(Unit("r", {OLD: NEW}), [])


def test_a_driver_that_tidies_up_leaves_alone_what_an_erasure_is_replacing(output):
    """It holds the record as it was before: files that the new one lists stay as well."""
    record = record_of("r", files=[OLD])
    for file in (OLD, NEW, OLD.replace("00000", "00001")):
        output.write(file, b"x")
    output.write("runs/r.json", record.to_json())
    died(output)
    tidy(output, record)
    assert sorted(output.names("annotations/dt=2026-01-02")) == [OLD.rpartition("/")[2], NEW.rpartition("/")[2]]
    output.remove(journal._path(1))
    output.write("runs/r.json", record.model_copy(update={"files": (NEW,)}).to_json())
    tidy(output, record)
    assert output.exists(NEW)
