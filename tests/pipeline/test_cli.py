"""Command line of a command: settings that reach it, and exit codes of its errors. commands/ tests the messages of each."""

import datetime as dt
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
from cyclopts import Parameter

from pipeline.cli import ConfigFile, command_app, problems, run_command, storage_options
from pipeline.config import AnnotateConfig
from pipeline.errors import StorageError, UserError

ROOT = Path(__file__).parents[2]
ASKED = ("--input", "in", "--output", "out")


class Command:
    """A command that keeps its settings, and raises the given error."""

    def __init__(self):
        self.config, self.raises = None, None
        self.app = command_app("job", "A job.", "job in out\njob --config job.toml")
        self.app.default(self._work)

    def _work(self, settings: Annotated[AnnotateConfig, Parameter(name="*")], *, config: ConfigFile = None) -> None:
        self.config = settings
        if self.raises is not None:
            raise self.raises

    def run(self, *tokens: object) -> int:
        return run_command(self.app, "job", [str(token) for token in tokens])


@pytest.fixture
def job():
    return Command()


def all_of_it(run_id: str) -> AnnotateConfig:
    """A setting of every kind."""
    return AnnotateConfig(
        input="in",
        output="out",
        schemes=("polarity2", "valence"),
        date=dt.date(2026, 1, 2),
        run_id=run_id,
        resume=True,
        max_bytes=1_000_000,
        fetch_timeout=2.5,
        storage_options={"key": "k", "client_kwargs": {"region_name": "r"}},
    )


def test_flags_give_settings_of_every_kind_and_the_rest_is_as_it_is_by_default(job):
    flags = ["--schemes", "polarity2,valence", "--date", "2026-01-02", "--resume", "--max-bytes", "1_000_000", "--fetch-timeout", "2.5"]
    assert job.run(*ASKED, *flags, "--storage-options", '{"key": "k", "client_kwargs": {"region_name": "r"}}') == 0
    assert job.config == all_of_it(job.config.run_id)


def test_a_file_gives_settings_of_every_kind(job, tmp_path):
    lines = ['input = "in"', 'output = "out"', 'schemes = ["polarity2", "valence"]', "date = 2026-01-02", "resume = true"]
    lines += ["max_bytes = 1_000_000", "fetch_timeout = 2.5", "[storage_options]", 'key = "k"', 'client_kwargs = { region_name = "r" }']
    (tmp_path / "job.toml").write_text("\n".join(lines))
    assert job.run("--config", tmp_path / "job.toml") == 0
    assert job.config == all_of_it(job.config.run_id)


def test_a_flag_can_take_back_what_a_file_says(job, tmp_path):
    (tmp_path / "job.toml").write_text('input = "in"\noutput = "out"\nresume = true\nlimit = 3\n')
    assert job.run("--config", tmp_path / "job.toml", "--no-resume", "--limit", "4") == 0
    assert (job.config.resume, job.config.limit) == (False, 4)


def test_a_list_is_emptied_by_an_empty_value_and_by_no_flag_of_its_own(job, tmp_path, capsys):
    (tmp_path / "job.toml").write_text('input = "in"\noutput = "out"\nallow_protocols = ["https"]\n')
    assert job.run("--config", tmp_path / "job.toml", "--allow-protocols", "") == 0
    assert job.config.allow_protocols == ()
    assert job.run(*ASKED, "--empty-allow-protocols") == 2
    assert capsys.readouterr().err.startswith("job: Unknown option: --empty-allow-protocols")


def test_what_a_user_got_wrong_is_a_line_each_and_two(job, capsys):
    job.raises = UserError("the input is\nnot there")
    assert job.run(*ASKED) == 2
    assert capsys.readouterr().err == "job: the input is not there\n"
    job.raises = ExceptionGroup("settings are wrong", [UserError("one"), UserError("another")])
    assert job.run(*ASKED) == 2
    assert capsys.readouterr().err == "job: one\njob: another\n"


def test_only_input_and_output_may_be_given_without_their_flags(job, capsys):
    assert job.run("in", "out") == 0
    assert (job.config.input, job.config.output) == ("in", "out")
    assert job.run("in", "out", "--schemes", "polarity2", "valence") == 2
    assert "valence" in capsys.readouterr().err


def test_a_storage_that_fails_is_a_line_and_one(job, capsys):
    job.raises = StorageError("the disk\nis full")
    assert job.run(*ASKED) == 1
    assert capsys.readouterr().err == "job: the disk is full\n"


@pytest.mark.parametrize("text", ["{", "3", '["hunter2"]', "[]", "[" * 100_000])
def test_storage_options_that_are_no_object_are_refused_and_not_shown(text):
    with pytest.raises(UserError, match=r"^--storage-options: not a JSON object$"):
        storage_options(text)


def test_storage_options_are_a_json_object():
    assert storage_options('{"key": "k"}') == {"key": "k"}


def test_an_interruption_is_130(job):
    job.raises = KeyboardInterrupt()
    with pytest.raises(SystemExit) as ended:
        job.run(*ASKED)
    assert ended.value.code == 130


@pytest.mark.parametrize("error", [SystemExit(143), RuntimeError("not foreseen")])
def test_what_ends_a_job_otherwise_is_not_hidden(job, error):
    job.raises = error
    with pytest.raises(type(error)) as ended:
        job.run(*ASKED)
    assert ended.value is error


def test_a_value_of_strangers_can_not_fill_the_terminal(job, capsys):
    assert job.run(*ASKED, "--limit", "\x1b[2J" + "x" * 10_000) == 2
    said = capsys.readouterr().err
    assert len(said) < 1100
    assert "\x1b" not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("text", ["input", "= 3", 'input = "in"\ninput = "in"', "\0", "a = [[[[", "limit = 0x"])
def test_a_file_that_is_no_toml_is_named(job, tmp_path, capsys, text):
    (tmp_path / "job.toml").write_text(text)
    assert job.run("--config", tmp_path / "job.toml") == 2
    assert capsys.readouterr().err.startswith(f"job: --config {tmp_path / 'job.toml'} is not valid TOML: ")
    assert job.config is None


def test_a_folder_and_text_that_is_no_utf8_are_no_files_of_settings(job, tmp_path, capsys):
    (tmp_path / "job.toml").write_bytes(b'input = "caf\xe9"')
    assert job.run("--config", tmp_path) == 2
    assert job.run("--config", tmp_path / "job.toml") == 2
    folder, text = capsys.readouterr().err.splitlines()
    assert folder == f"job: --config {tmp_path} can't be read: Is a directory"
    assert text.startswith(f"job: --config {tmp_path / 'job.toml'} is not valid TOML: 'utf-8' codec can't decode")


def test_an_error_of_another_kind_is_its_message():
    assert list(problems(UserError("check the path"))) == ["check the path"]


@pytest.mark.parametrize("closed", [(0,), (0, 1, 2), (2,)])
def test_standard_streams_that_are_closed_are_opened_so_that_no_file_gets_their_numbers(tmp_path, closed):
    program = f"""
import os, sys
for number in {closed}:
    os.close(number)
    setattr(sys, ("stdin", "stdout", "stderr")[number], None)
from pipeline.cli import open_standard_streams
open_standard_streams()
with open(sys.argv[1], "w") as file:
    print(file.fileno() > 2, None not in (sys.stdin, sys.stdout, sys.stderr), file=file)
print("lost, or not", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], timeout=60, cwd=ROOT)
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "True True\n"
