"""The files that `ray job submit` names run the subcommand of their name, with all of its arguments."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

from pipeline.commands import main

JOBS = Path(__file__).parents[2] / "jobs"
NAMES = sorted(command.name[0] for command in main.COMMANDS if command is not main.completion_app)


def test_each_subcommand_has_a_file():
    assert sorted(path.stem for path in JOBS.glob("*.py")) == sorted([*NAMES, "sample"])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_runs_its_subcommand_and_exits_with_its_code(name, monkeypatch):
    given = []
    monkeypatch.setattr(main, "run", lambda tokens: given.append(tokens) or 3)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--config", "run.toml"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(JOBS / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 3
    assert given == [[name, "--config", "run.toml"]]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_happens_on_import(name, monkeypatch):
    """Ray's workers import a job's file as a module."""
    monkeypatch.setattr(main, "run", lambda tokens: pytest.fail("the command was run"))
    runpy.run_path(str(JOBS / f"{name}.py"), run_name="job")
    assert name in (ast.get_docstring(ast.parse((JOBS / f"{name}.py").read_text())) or "")
