"""docs/reference.md is what the settings, exit codes and statuses are, in words that hold for settings of every kind."""

import datetime as dt
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from pipeline.cli import EXIT_CODES
from pipeline.config import AnnotateConfig, Names
from pipeline.errors import STATUSES
from pipeline.reference import _default, _takes, reference

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


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
    ("name", "takes", "default"),
    [
        ("given", "text, length at least 1", "must be given"),
        ("words", "list", "`a,b`"),
        ("kinds", "list of `delta`, `iceberg`", ""),
        ("colour", "`red`", ""),
        ("share", "number, more than 0, at most 1", "`0.5`"),
        ("count", "whole number, at least 1, less than 5,000", ""),
        ("size", "whole number, at least 1", "`50_000_000`"),
        ("either", "whole number or `auto`", "`auto`"),
        ("on", "yes or no", "yes"),
        ("day", "date, `YYYY-MM-DD`", "made for each run"),
        ("options", "JSON object", ""),
    ],
)
def test_settings_of_every_kind_have_words(name, takes, default):
    schema = Settings.model_json_schema()
    assert _takes(schema["properties"][name], schema) == takes
    assert _default(Settings.model_fields[name]) == default


def test_the_page_is_what_the_program_makes():
    assert PAGE.read_text() == reference(), "run: make docs"


def test_the_page_has_every_setting_code_and_status_once():
    rows = re.findall(r"^\| `?([\w-]+)`? \| .* \|$", PAGE.read_text(), re.MULTILINE)
    settings = [f"--{name.replace('_', '-')}" for name in AnnotateConfig.model_fields]
    assert [row for row in rows if row not in ("setting", "code", "status", "---")] == [*settings, *map(str, EXIT_CODES), *STATUSES]


def test_numbers_may_be_given_as_the_page_writes_them():
    assert AnnotateConfig(input="in", output="out", max_bytes="50_000_000").max_bytes == 50_000_000
