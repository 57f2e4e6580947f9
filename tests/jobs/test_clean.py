"""The job that removes files of dead runs."""

import json

import pytest


@pytest.fixture
def output(tmp_path):
    for name in ("_work/dead/plan.json", "annotations/dt=2026-01-02/part-dead-aaaaaaaa-00000.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


def test_it_lists_and_then_removes(job, output, capsys):
    assert job.run(["--output", str(output), "--older-than", "0", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"{output}/_work/dead  (run dead: 1 files, 0.0 MB, last changed 20" in said
    assert "2 would be removed" in said
    assert len([path for path in output.rglob("*") if path.is_file()]) == 2
    assert job.run(["--output", str(output), "--older-than", "0"]) == 0
    assert "2 removed" in capsys.readouterr().out
    assert not [path for path in output.rglob("*") if path.is_file()]


def test_what_is_not_a_week_old_is_left_alone(job, output, capsys):
    assert job.run(["--output", str(output)]) == 0
    assert capsys.readouterr().out.startswith("0 removed")


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ([], "requires an argument"),
        (["--output", "out", "--older-than", "-1"], "older-than"),
        (["--output", "out", "--storage-options", "{"], "--storage-options: not a JSON object"),
        (["--output", "out", "--storage-options", "3"], "--storage-options: not a JSON object"),
        (["--output", "s4://out"], "did you mean 's3://'"),
    ],
)
def test_what_is_wrong_is_one_line(job, tokens, line, capsys):
    assert job.run(tokens) == 2
    said = capsys.readouterr().err
    assert said.startswith("clean: ")
    assert said.count("\n") == 1
    assert line in said


def test_a_record_that_cannot_be_read_stops_it(job, output, capsys):
    (output / "runs").mkdir()
    (output / "runs" / "r.json").write_text(json.dumps({"run_id": "r"}))
    assert job.run(["--output", str(output), "--older-than", "0"]) == 2
    assert "nothing was removed" in capsys.readouterr().err
    assert (output / "_work/dead/plan.json").exists()
