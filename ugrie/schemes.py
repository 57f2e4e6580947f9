"""Emotion models ("schemes") as data: one TOML file each, in `ugrie/schemes/` or anywhere a user keeps theirs.

    >>> load_scheme("ekman6").label_names
    ('anger', 'disgust', 'fear', 'joy', 'sadness', 'surprise')

A categorical scheme is a set of labels in a fixed order. An ordinal scheme is a set of labels that stand for values in a
stated range, lowest first; its reading for an image is the expectation over them.
"""

import difflib
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FOLDER = Path(__file__).parent / "schemes"


class SchemeError(ValueError):
    """A scheme is unknown or its file is wrong. The message names the thing and the remedy."""


class Label(BaseModel):
    """One label. `value` is set in ordinal schemes only; `polarity` is None where a label has none (surprise)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, pattern=r"^[^\W_][\w'\-/]*( [\w'\-/]+)*$")
    polarity: Literal["positive", "negative", "neutral"] | None = None
    synonyms: tuple[str, ...] = ()
    value: float | None = None


class Scheme(BaseModel):
    """An emotion model: its labels in order, the template clause that asks for one of them, and its source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    kind: Literal["categorical", "ordinal"]
    clause: str = Field(min_length=1, pattern=r"^[^\s,.;]+( [^\s,.;]+)*$")
    source: str
    range: tuple[float, float] | None = None
    labels: tuple[Label, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _check(self) -> "Scheme":
        seen: dict[str, str] = {}
        for label in self.labels:
            for word in (label.name, *label.synonyms):
                if seen.setdefault(word.casefold(), label.name) != label.name:
                    raise ValueError(f"'{word}' stands for both '{seen[word.casefold()]}' and '{label.name}'")
        if len({label.name.casefold() for label in self.labels}) < len(self.labels):
            raise ValueError("two labels have the same name")
        values = [label.value for label in self.labels]
        if self.kind == "categorical":
            if self.range is not None or any(v is not None for v in values):
                raise ValueError("a categorical scheme has no range and its labels no value; did you mean kind = 'ordinal'?")
        else:
            if self.range is None or any(v is None for v in values):
                raise ValueError("an ordinal scheme needs a range, and each of its labels a value")
            if values != sorted(set(values)):  # type: ignore[type-var]
                raise ValueError("the labels' values must rise from the first label to the last")
            if (values[0], values[-1]) != self.range:
                raise ValueError(f"the range is {list(self.range)}, but the labels' values go from {values[0]} to {values[-1]}")
        return self

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def values(self) -> tuple[float, ...]:
        """The labels' values, for ordinal schemes."""
        return tuple(label.value for label in self.labels if label.value is not None)

    def label_index(self, word: str) -> int:
        """The position of a label given by its name or a synonym, whatever the case. Raises SchemeError."""
        words = {w.casefold(): i for i, label in enumerate(self.labels) for w in (*label.synonyms, label.name)}
        if word.casefold() not in words:
            raise SchemeError(f"'{word}' is no label of {self.name}{did_you_mean(word.casefold(), words)}: {', '.join(self.label_names)}")
        return words[word.casefold()]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' (did you mean …?)', or nothing where no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def bundled_schemes() -> tuple[str, ...]:
    """Names of the schemes that come with UGRIE."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


@cache
def load_scheme(name_or_path: str) -> Scheme:
    """A bundled scheme by its name, or a user's own by the path of its TOML file. Raises SchemeError."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = FOLDER / f"{name_or_path}.toml"
        if name_or_path not in bundled_schemes():
            known = bundled_schemes()
            raise SchemeError(
                f"no scheme is named '{name_or_path}'{did_you_mean(name_or_path, known)}; bundled are {', '.join(known)}; "
                "a scheme of your own is given as the path of its .toml file"
            )
    try:
        with path.open("rb") as file:
            scheme = Scheme.model_validate(tomllib.load(file))
    except FileNotFoundError:
        raise SchemeError(f"{path}: there is no such scheme file") from None
    except tomllib.TOMLDecodeError as error:
        raise SchemeError(f"{path} is not valid TOML: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'scheme'}: {e['msg']}" for e in error.errors())
        raise SchemeError(f"{path}: {problems}") from None
    if scheme.name != path.stem:
        raise SchemeError(f"{path}: the scheme calls itself '{scheme.name}'; name and file name must agree")
    return scheme
