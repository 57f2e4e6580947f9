"""The records of committed runs."""

import datetime as dt
import json

import pytest

from pipeline.errors import UserError
from pipeline.table import run_record
from pipeline.table.commit import commit
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord, past_runs
from pipeline.table.schema import SCHEMA_VERSION

MODEL = "ugrie-tiny@0123456789ab"
WHOLE = {
    "run_id": "r",
    "schema_version": SCHEMA_VERSION,
    "model": MODEL,
    "date": "2026-01-02",
    "finished_at": "2026-01-02T03:00:00+00:00",
    "schemes": {"polarity2": "categorical"},
    "counts": {"rows": 0},
    "files": [],
    "config": {},
}


@pytest.fixture
def output(tmp_path):
    return OutputFolder(str(tmp_path), {})


def put(output, run_id, **parts):
    """Write a record."""
    output.write(f"runs/{run_id}.json", json.dumps(WHOLE | {"run_id": run_id} | parts).encode())


def runs(output):
    return [record.run_id for record in past_runs(output, MODEL)]


def test_the_runs_of_a_model_are_found_newest_first(output):
    put(output, "c", date="2026-01-03")
    put(output, "a", finished_at="2026-01-02T05:00:00+00:00")
    put(output, "b", finished_at="2026-01-02T04:00:00+00:00")
    put(output, "d", date="2026-01-01", finished_at="2026-02-01T00:00:00+00:00")
    put(output, "other", model="ugrie-tiny@ffffffffffff")
    output.write("runs/c.html", b"<html>")
    assert runs(output) == ["c", "a", "b", "d"]
    assert past_runs(output, "ugrie-tiny@ffffffffffff")[0].run_id == "other"


def test_an_output_that_is_new_has_no_runs(output):
    assert runs(output) == []
    assert past_runs(OutputFolder(f"{output.uri}/nowhere", {}), MODEL) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("half a rec", r"runs/x\.json is no run record \(Invalid JSON: .*\): repair it, or move it elsewhere"),
        ("{}", r"runs/x\.json is no run record \(schema_version: Field required\)"),
        ("[]", r"runs/x\.json is no run record \(Input should be an object\)"),
        ('{"schema_version": "1"}', r"runs/x\.json is no run record \(schema_version: Input should be a valid integer\)"),
        ('{"schema_version": 0}', r"runs/x\.json is no run record \(schema_version: Input should be greater than or equal to 1\)"),
        ('{"schema_version": 1}', r"runs/x\.json is no run record \(run_id: Field required\)"),
        (
            '{"schema_version": 4}',
            r"runs/x\.json was written by a newer UGRIE \(schema version 4; this one reads up to 3\): upgrade UGRIE, or choose another",
        ),
    ],
)
def test_a_record_that_can_not_be_understood_is_named_and_never_misread(output, text, message):
    put(output, "good")
    output.write("runs/x.json", text.encode())
    with pytest.raises(UserError, match=message) as error:
        runs(output)
    assert "\n" not in str(error.value)


def test_an_output_that_can_not_be_read_is_a_users_error(s3):
    with pytest.raises(UserError, match=r"the output can't be read: .*; check the path and the credentials"):
        past_runs(OutputFolder(f"s3://{s3.bucket}/out", s3.refused), MODEL)


def test_a_record_is_written_as_it_is_read():
    """Times to the second with their offset, the keys in one order, umlauts as themselves."""
    times = {"started_at": "2026-01-02T01:00:00+00:00", "finished_at": "2026-01-02T04:30:00+02:00"}
    counts = {
        "listed": 3,
        "known": 1,
        "overtaken": 0,
        "suppressed": 0,
        "erased": 0,
        "left_out": {"x": 4},
        "rows": 2,
        "status": {"ok": 2},
        "retried": {},
        "reposts": {"run": 1, "earlier": 0},
        "labels": {"s": {"a": 2}},
        "sums": {"valence": 9.5},
    }
    values = WHOLE | times | {"counts": counts, "input": "s3://bucket/é", "timings": {"plan_seconds": 1.5, "rate": None}}
    data = RunRecord.model_validate(values).to_json()
    assert RunRecord.from_json(data, "r.json").to_json() == data
    written = json.loads(data)
    assert {key: written[key] for key in values} == values
    assert "é".encode() in data
    assert list(written)[:3] == ["run_id", "schema_version", "model"]


def test_a_time_without_its_zone_is_refused():
    values = WHOLE | {"finished_at": dt.datetime(2026, 1, 2).isoformat()}
    with pytest.raises(UserError, match=r"r\.json is no run record \(finished_at: Input should have timezone info\)"):
        RunRecord.from_json(json.dumps(values).encode(), "r.json")


@pytest.fixture
def many(output, monkeypatch):
    """A record of five files in three lists."""
    monkeypatch.setattr(run_record, "MAX_FILES", 2)
    return commit(output, RunRecord.model_validate(WHOLE | {"files": [f"annotations/{i}.parquet" for i in range(5)]}))


def test_a_record_of_many_files_names_lists_of_them(output, many):
    written = output.read_json("runs/r.json")
    assert (written["schema_version"], written["files"], len(written["file_lists"])) == (SCHEMA_VERSION + 1, [], 3)
    lists = [output.read_json(path) for path in written["file_lists"]]
    assert [each["file_list"] for each in lists] == written["file_lists"]
    assert [file for each in lists for file in each["files"]] == list(many.files)
    assert past_runs(output) == [many]
    assert many.schema_version == SCHEMA_VERSION
    assert "file_lists" not in json.loads(many.with_files(many.files[:2], "b").to_json())


def test_a_list_that_is_gone_or_broken_is_named_and_its_files_are_not_missed(output, many):
    output.remove(many.file_lists[1])
    with pytest.raises(UserError, match=rf"runs/r\.json names {many.file_lists[1]}, a list of its files, which is gone: restore it"):
        past_runs(output)
    output.write(many.file_lists[1], b'{"file_list": "x"}')
    with pytest.raises(UserError, match=rf"{many.file_lists[1]} is no list of a run's files \(files: Field required\)"):
        past_runs(output)


def test_a_record_whose_lists_are_replaced_while_it_is_read_is_read_again(output, many, monkeypatch):
    fewer = many.with_files(many.files[1:], "b")
    read = OutputFolder.read

    def replacing(self, path):
        data = read(self, path)
        if path == "runs/r.json" and json.loads(data)["file_lists"] == list(many.file_lists):
            fewer.write_lists(output)
            output.write(path, fewer.to_json())
            for old in many.file_lists:
                output.remove(old)
        return data

    monkeypatch.setattr(OutputFolder, "read", replacing)
    assert past_runs(output) == [fewer]
