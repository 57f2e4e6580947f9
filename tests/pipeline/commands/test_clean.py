"""`ugrie clean`: what dead runs left."""

import json

import pytest

from pipeline.table.output_folder import OutputFolder


@pytest.fixture
def output(tmp_path):
    for name in ("_work/dead/plan.json", "annotations/dt=2026-01-02/part-dead-aaaaaaaa-00000.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


def test_it_lists_and_then_removes(command, output, capsys):
    assert command.run(["--output", str(output), "--older-than", "0", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"{output}/_work/dead  (run dead: 1 files, 0.0 MB, last changed 20" in said
    assert "2 would be removed" in said
    assert len([path for path in output.rglob("*") if path.is_file()]) == 2
    assert command.run(["--output", str(output), "--older-than", "0"]) == 0
    assert "2 removed" in capsys.readouterr().out
    assert not [path for path in output.rglob("*") if path.is_file()]


def test_what_is_not_a_week_old_is_left_alone(command, output, capsys):
    assert command.run(["--output", str(output)]) == 0
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
def test_what_is_wrong_is_one_line(command, tokens, line, capsys):
    assert command.run(tokens) == 2
    said = capsys.readouterr().err
    assert said.startswith("clean: ")
    assert said.count("\n") == 1
    assert line in said


def test_names_of_strangers_and_links_are_shown_on_one_line_without_secrets(command, output, capsys):
    (output / "annotations/dt=2026-01-02/part-a\x1b[31mb-aaaaaaaa-00000.parquet").write_text("x")
    assert command.run(["--output", str(output), "--older-than", "0", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "(run a\\x1b[31mb: 1 files" in said
    assert "\x1b" not in said


def failing(error):
    def fail(*_, **__):
        raise error

    return fail


@pytest.mark.parametrize(
    ("method", "code", "line"),
    [
        ("find", 2, "clean: the output can't be read: can't reach https://host/a with …; check the path and the credentials\n"),
        (
            "remove",
            1,
            "_work/dead can't be removed: can't reach https://host/a with …; what was removed before is gone\n",
        ),
    ],
)
def test_what_the_storage_says_is_one_line_without_secrets(command, output, capsys, monkeypatch, method, code, line):
    error = PermissionError("can't reach https://me:hunter2@host/a?X-Amz-Signature=hunter2\nwith hunter2/and+more")
    monkeypatch.setattr(OutputFolder, method, failing(error))
    options = json.dumps({"secret": "hunter2/and+more"})
    assert command.run(["--output", str(output), "--older-than", "0", "--storage-options", options]) == code
    said = capsys.readouterr().err
    assert said.endswith(line)
    assert said.count("\n") == 1


def test_a_record_that_cannot_be_read_stops_it(command, output, capsys):
    (output / "runs").mkdir()
    (output / "runs" / "r.json").write_text(json.dumps({"run_id": "r"}))
    assert command.run(["--output", str(output), "--older-than", "0"]) == 2
    assert "nothing was removed" in capsys.readouterr().err
    assert (output / "_work/dead/plan.json").exists()


def test_erasing_lists_what_would_go_and_then_says_what_went(command, night, tmp_path, capsys):
    night(tmp_path, "2026-01-02", [(f"s3://b/{i}.jpg", bytes([i])) for i in range(5)], schemes=("valence",))
    (tmp_path / "list.txt").write_text("s3://b/1.jpg\ns3://b/9.jpg\n")
    tokens = ["--output", str(tmp_path), "--erase", str(tmp_path / "list.txt")]
    assert command.run([*tokens, "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "dt=2026-01-02  run night-2026-01-02: 1 of 5 rows, in 1 files",
        "1 rows of 1 nights would be erased; 1 of 2 entries name no row",
    ]
    assert command.run(tokens) == 0
    assert capsys.readouterr().out.splitlines() == [said[0], said[1].replace("would be erased", "erased")]
    assert command.run(tokens) == 0
    assert capsys.readouterr().out == "0 rows of 0 nights erased; 2 of 2 entries name no row\n"


def test_what_can_not_be_erased_yet_is_said_and_the_exit_code_is_1(command, night, tmp_path, capsys):
    (file,) = night(tmp_path, "2026-01-02", [("s3://b/1.jpg", b"1")], schemes=("valence",)).files
    (tmp_path / file).with_name("notes.parquet").write_bytes((tmp_path / file).read_bytes())
    (tmp_path / "list.txt").write_text("s3://b/1.jpg\n")
    with pytest.raises(SystemExit) as ended:
        command.run(["--output", str(tmp_path), "--erase", str(tmp_path / "list.txt")])
    assert ended.value.code == 1
    assert capsys.readouterr().out.endswith("notes.parquet stay, since no run wrote it: remove it, and give the same command again\n")


def test_a_wrong_list_is_one_line(command, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("1.jpg\n")
    assert command.run(["--output", str(tmp_path), "--erase", str(tmp_path / "list.txt")]) == 2
    assert "list.txt, line 1: '1.jpg' names no image" in capsys.readouterr().err
