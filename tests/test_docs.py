"""The documentation names tests, commands, flags and pages that exist."""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from pipeline.commands import main
from pipeline.config import AnnotateConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:python (?!-)|(?:^|`|\$ )(?=ugrie [a-z]))(\S+\.py|ugrie [\w-]+)([^`\n|]*)", re.MULTILINE)
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
RAY_FLAGS = {"--object-store-memory", "--working-dir"}


@cache
def flags(script: Path) -> set[str]:
    """Return the flags of a job, a benchmark or an example. Those of a job are its subcommand's."""
    if script.parent.name != "jobs":
        return set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", script.read_text()))
    apps = [command for command in main.COMMANDS if command.name == (script.stem,)]
    return {"--help"}.union(*(argument.names for app in apps for argument in app.assemble_argument_collection()))


def commands(text: str) -> list[tuple[Path, list[str]]]:
    """Return each script that a text runs, with the flags it is given. `ugrie plan` is jobs/plan.py."""
    found = COMMAND.findall(re.sub(r"\\\n\s*", "", text))
    scripts = [re.sub(r"^ugrie ([\w-]+)$", r"jobs/\1.py", name) for name, _ in found]
    given = [re.findall(r"(?<=\s)--[\w-]+", QUOTED.sub("", arguments)) for _, arguments in found]
    return [(ROOT / script, each) for script, each in zip(scripts, given, strict=True) if script != "jobs/completion.py"]


def test_every_test_that_a_promise_names_is_there():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "guarantees.md").read_text()))
    defined = {
        name for path in ROOT.glob("tests/**/test_*.py") for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 15
    assert named - defined == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_documentation_leads_somewhere(page):
    for target, _, anchor in re.findall(r"\]\((?!https?://)([^)#]*)(#([\w-]+))?\)", page.read_text()):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, (target, anchor)


@pytest.mark.parametrize(
    "page", [*PAGES, *sorted(ROOT.glob("pipeline/commands/*.py")), *sorted(ROOT.glob("docs/examples/*.py"))], ids=lambda page: page.name
)
def test_every_command_has_the_flags_that_it_is_shown_with(page):
    for script, given in commands(page.read_text()):
        assert script.is_file(), script
        assert set(given) <= flags(script), script.name


def test_commands_are_found_in_what_pages_hold():
    """Otherwise the test above would check nothing."""
    text = "ray job submit -- python jobs/plan.py --sample 4 --model 'x --y' \\\n  --json\n`ugrie clean --dry-run`, `--older-than`"
    assert commands(text) == [(ROOT / "jobs/plan.py", ["--sample", "--model", "--json"]), (ROOT / "jobs/clean.py", ["--dry-run"])]
    assert commands("$ ugrie plan --json\nugrie anotate --x\n") == [
        (ROOT / "jobs/plan.py", ["--json"]),
        (ROOT / "jobs/anotate.py", ["--x"]),
    ]
    assert {"--sample", "--input", "--config", "--json"} <= flags(ROOT / "jobs/plan.py")
    assert "--sample" not in flags(ROOT / "jobs/annotate.py")
    assert sum(len(commands(page.read_text())) for page in PAGES) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_and_target_that_a_page_names_is_there(page):
    """Checks flags in code marks, alone or with a value."""
    known = set().union(*(flags(path) for folder in ("jobs", "benchmarks", "docs/examples") for path in ROOT.glob(f"{folder}/*.py")))
    assert set(re.findall(r"`(--[\w-]+)", page.read_text())) - known - RAY_FLAGS == set()
    targets = re.findall(r"^([a-z][\w -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = set(re.findall(r"(?:`|^)make ([\w-]+)", page.read_text(), re.MULTILINE))
    assert named - {name for line in targets for name in line.split()} == set()


def test_the_file_of_settings_in_the_guide_is_one():
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "annotating.md").read_text(), re.DOTALL)
    assert AnnotateConfig(**tomllib.loads(text)).output == "s3://bucket/emotions"


def test_the_index_has_a_line_for_every_page():
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)", index.read_text())}
    assert set(PAGES) - linked == {index}
