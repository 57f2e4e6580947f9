"""docs/reference.md agrees with the settings, exit codes and statuses of the code; its generator handles settings of every kind."""

import datetime as dt
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from cyclopts import Parameter
from pydantic import BaseModel, Field

from docs.reference import _default, _type, reference
from pipeline.cli import EXIT_CODES
from pipeline.config import AnnotateConfig, Names
from pipeline.errors import STATUSES

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"


class Colour(StrEnum):
    RED = "red"


class Settings(BaseModel):
    given: str = Field(min_length=1)
    words: Names = ("a", "b")
    kinds: tuple[Literal["delta", "iceberg"], ...] = ()
    colour: Colour | None = None
    share: float = Field(0.5, gt=0, le=1)
    count: int | None = Field(None, ge=1, lt=5000)
    size: int = Field(50_000_000, ge=1)
    either: int | Literal["auto"] = "auto"
    on: bool = True
    day: dt.date = Field(default_factory=dt.date.today)
    options: dict[str, Any] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("given", "text, length at least 1", "required"),
        ("words", "list", "`a,b`"),
        ("kinds", "list of `delta`, `iceberg`", ""),
        ("colour", "`red`", ""),
        ("share", "number, more than 0, at most 1", "`0.5`"),
        ("count", "whole number, at least 1, less than 5,000", ""),
        ("size", "whole number, at least 1", "`50_000_000`"),
        ("either", "whole number or `auto`", "`auto`"),
        ("on", "yes or no", "yes"),
        ("day", "date, `YYYY-MM-DD`", "new in each run"),
        ("options", "JSON object", ""),
    ],
)
def test_settings_of_every_kind_have_words(name, kind, default):
    schema = Settings.model_json_schema()
    assert _type(schema["properties"][name], schema) == kind
    assert _default(Settings.model_fields[name]) == default


def test_the_page_is_what_the_program_makes():
    assert PAGE.read_text() == reference(), "run: make docs"


def flags_of(group: str) -> list[str]:
    """The flags of a group of settings, in their order in the class."""
    return [
        f"--{name.replace('_', '-')}"
        for name, field in AnnotateConfig.model_fields.items()
        if any(isinstance(entry, Parameter) and entry.group and entry.group[0].name == group for entry in field.metadata)
    ]


def test_each_group_of_settings_is_a_section():
    sections = PAGE.read_text().partition("\n## Exit codes")[0].split("\n### ")[1:]
    assert [section.partition("\n")[0] for section in sections] == ["Input", "Output", "Model", "Resources", "Limits", "Operations"]
    for section in sections:
        assert re.findall(r"^\| `(--[\w-]+)` \|", section, re.MULTILINE) == flags_of(section.partition("\n")[0])


def test_the_page_has_every_setting_code_and_status_once():
    rows = re.findall(r"^\| `?([\w-]+)`? \| .* \|$", PAGE.read_text(), re.MULTILINE)
    groups = ("Input", "Output", "Model", "Resources", "Limits", "Operations")
    settings = [flag for group in groups for flag in flags_of(group)]
    assert len(settings) == len(AnnotateConfig.model_fields)
    assert [row for row in rows if row not in ("setting", "code", "status", "---")] == [*settings, *map(str, EXIT_CODES), *STATUSES]


def test_numbers_may_be_given_as_the_page_writes_them():
    assert AnnotateConfig(input="in", output="out", max_bytes="50_000_000").max_bytes == 50_000_000
