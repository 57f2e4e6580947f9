"""A run's record, and what is removed once it is there."""

import pytest

from pipeline.table import commit
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord


def record_of(run_id, **parts):
    about = {"run_id": run_id, "model": "m@1", "date": "2026-01-02", "finished_at": "2026-01-02T03:00:00+00:00", "schemes": {}}
    return RunRecord.model_validate(about | {"counts": {}, "files": (), "config": {}} | parts)


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_the_record_is_json_under_its_runs_name(tmp_path, kind):
    output = OutputFolder(str(tmp_path) if kind == "local" else "memory://commit-test", {})
    record = record_of("r-1", input="s3://bucket/é")
    assert commit.commit(output, record) == record
    assert output.read("runs/r-1.json") == record.to_json()
    assert commit.commit(output, record.model_copy(update={"input": "another driver's"})) == record
    assert output.read("runs/r-1.json") == record.to_json()


def test_a_file_of_the_table_names_its_run():
    named = {
        "o/annotations/dt=2026-01-02/part-r-0123abcd-00000.parquet": "r",
        "part-r-0123abcd-0123abcd-00000.parquet": "r-0123abcd",
        ".part-r.s-0123abcd-00017.parquet." + "0" * 32: "r.s",
    }
    assert {name: commit.part_of(name) for name in named} == named
    for name in (
        "part-r-00000.parquet",
        "part-r-0123abcd-00000.csv",
        "spark-part-r-0123abcd-00000.parquet",
        "part--0123abcd-00000.parquet",
    ):
        assert commit.part_of(name) is None


def test_what_a_committed_run_left_is_removed_and_nothing_else(tmp_path):
    output = OutputFolder(str(tmp_path), {})
    folder = "annotations/dt=2026-01-02"
    kept = [
        f"{folder}/part-r-aaaaaaaa-00000.parquet",
        f"{folder}/part-r-bbbbbbbb-cccccccc-00000.parquet",  # of the run r-bbbbbbbb
        f"{folder}/notes.parquet",
        "annotations/dt=2026-01-03/part-r-bbbbbbbb-00000.parquet",  # not of this run: it has another date
        "_work/other/plan.json",
        "runs/r.json",
    ]
    gone = [
        f"{folder}/part-r-bbbbbbbb-00000.parquet",
        f"{folder}/.part-r-bbbbbbbb-00001.parquet.{'0' * 32}",
        "_work/r/plan.json",
        "_work/r/rows/block-00000000.parquet",
    ]
    for name in kept + gone:
        output.write(name, b"x")
    output.write("runs/r.json", record_of("r", files=kept[:1]).to_json())
    commit.tidy(output, record_of("r", files=kept[:1]))
    assert sorted(output.find()) == sorted(kept)


def test_a_run_stays_committed_where_what_it_left_cannot_be_removed(tmp_path, monkeypatch, caplog):
    output = OutputFolder(str(tmp_path), {})
    output.fs.makedirs(output.absolute("_work/r"))
    monkeypatch.setattr(type(output.fs), "rm", lambda *_, **__: (_ for _ in ()).throw(PermissionError("no")))
    commit.tidy(output, record_of("r"))
    assert "run `ugrie clean`" in caplog.text
