"""Left-overs of dead runs."""

import datetime as dt
import json
import os
import time

import pytest

from pipeline.errors import UserError
from pipeline.maintenance.vacuum import leftovers, remove
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs

WEEK = dt.timedelta(days=7)
RECORD = {"run_id": "done", "schema_version": 1, "model": "m@1", "date": "2026-01-02", "finished_at": "2026-01-02T03:00:00+00:00"}
RECORD |= {"schemes": {}, "counts": {}, "config": {}}


@pytest.fixture
def output(tmp_path):
    """A committed run, one that died long ago, one at work, and a file that is none of UGRIE's."""
    days_old = {
        "annotations/dt=2026-01-02/part-done-aaaaaaaa-00000.parquet": 90,
        "annotations/dt=2026-01-02/part-done-bbbbbbbb-00000.parquet": 90,  # of a driver that did not commit
        "annotations/dt=2026-01-02/part-dead-aaaaaaaa-00000.parquet": 30,
        "annotations/dt=2026-01-02/notes.parquet": 90,
        "_work/done/plan.json": 1,
        "_work/dead/plan.json": 31,
        "_work/dead/rows/block-00000000.parquet": 30,
        "_work/busy/plan.json": 20,
        "_work/busy/rows/block-00000000.parquet": 0,
        "runs/done.json": 90,
    }
    for name, days in days_old.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(RECORD | {"files": [next(iter(days_old))]}) if name.startswith("runs") else "x" * 100)
        os.utime(path, (time.time() - days * 86400,) * 2)
    return tmp_path


def names(found):
    return [leftover.path for leftover in found]


def at(path):
    return OutputFolder(str(path), {})


def test_what_is_committed_or_may_be_at_work_is_left_alone(output):
    found = leftovers(at(output), WEEK)
    assert names(found) == [
        "_work/dead",
        "annotations/dt=2026-01-02/part-dead-aaaaaaaa-00000.parquet",
        "_work/done",
        "annotations/dt=2026-01-02/part-done-bbbbbbbb-00000.parquet",
    ]
    assert (found[0].run_id, found[0].files, found[0].bytes) == ("dead", 2, 200)
    assert 29 < (dt.datetime.now(dt.UTC) - found[0].changed).days + 1 < 32


def test_a_dead_runs_files_of_the_table_wait_for_its_work(output):
    os.utime(output / "_work/dead/rows/block-00000000.parquet")
    assert [leftover.run_id for leftover in leftovers(at(output), WEEK)] == ["done", "done"]


def test_whatever_is_not_committed_goes_where_no_age_is_asked(output):
    assert "_work/busy" in names(leftovers(at(output), dt.timedelta(0)))


def test_only_what_was_found_is_removed(output):
    found = leftovers(at(output), WEEK)
    assert list(remove(at(output), found)) == found
    left = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert left == {
        "annotations/dt=2026-01-02/part-done-aaaaaaaa-00000.parquet",
        "annotations/dt=2026-01-02/notes.parquet",
        "_work/busy/plan.json",
        "_work/busy/rows/block-00000000.parquet",
        "runs/done.json",
    }
    assert leftovers(at(output), WEEK) == []


@pytest.mark.parametrize("record", ["{", "[]", '{"run_id": "x"}'])
def test_a_record_that_cannot_be_read_stops_it_all(output, record):
    (output / "runs" / "x.json").write_text(record)
    with pytest.raises(UserError, match=r"runs/x\.json is no run record .* nothing was removed"):
        leftovers(at(output), WEEK)


def test_an_output_in_s3_is_cleaned_as_well(s3):
    s3.put("cleaned/_work/dead/plan.json", b"{}")
    s3.put("cleaned/annotations/dt=2026-01-02/part-dead-aaaaaaaa-00000.parquet", b"x")
    output = OutputFolder(f"s3://{s3.bucket}/cleaned", s3.options)
    assert leftovers(output, WEEK) == []
    found = leftovers(output, dt.timedelta(0))
    assert len(list(remove(output, found))) == 2
    s3.fs.invalidate_cache()
    assert [name for name in s3.fs.find(f"{s3.bucket}/cleaned") if name.endswith((".json", ".parquet"))] == []


def test_lists_of_files_go_where_no_record_names_them(night, tmp_path, in_lists):
    record = night(tmp_path, "2026-01-02", [(f"file:///{i}.jpg", b"%d" % i) for i in range(4)], [], parts=2)
    in_lists(at(tmp_path))
    lost, dead = f"runs/{record.run_id}.files/lost-00000.json", "runs/dead.files/aaaaaaaa-00000.json"
    at(tmp_path).write(dead, b"{}")
    assert names(leftovers(at(tmp_path), WEEK)) == [lost]
    assert names(leftovers(at(tmp_path), dt.timedelta(0))) == [dead, lost]
    lists = past_runs(at(tmp_path))[0].file_lists
    (tmp_path / "runs" / f"{record.run_id}.json").unlink()
    assert set(names(leftovers(at(tmp_path), dt.timedelta(0)))) == {dead, lost, *lists, *record.files}
