"""Emotion models ("schemes") as data: one TOML file each, in `ugrie/schemes/` or at a user's own path.

    >>> load_scheme("ekman6").label_names
    ('anger', 'disgust', 'fear', 'joy', 'sadness', 'surprise')

A categorical scheme is a set of labels in a fixed order. In an ordinal scheme each label has a value in the scheme's range, lowest
first; the result for an image is the expectation over the values. Some schemes are arranged on a wheel, and some have crosswalks,
mappings to other schemes. docs/schemes.md lists the bundled schemes and shows how to write one.
"""

import tomllib
from collections import Counter
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ugrie.errors import GivenError
from ugrie.text import did_you_mean

FOLDER = Path(__file__).parent
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


class SchemeError(GivenError):
    """An unknown scheme, label or crosswalk, or a wrong scheme file. The message names it and the remedy."""


class Label(BaseModel):
    """A label. `value` is set in ordinal schemes only. `polarity` is None for a label without one, such as surprise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, pattern=r"^[^\W_][\w'\-/]*( [\w'\-/]+)*$")
    polarity: Literal["positive", "negative", "neutral"] | None = None
    synonyms: tuple[str, ...] = ()
    value: FiniteFloat | None = None


class Crosswalk(BaseModel):
    """A mapping to another scheme: `labels` lists, for each label of the other scheme, the own labels that map to it.

    An own label that maps to several is divided equally among them. `unmapped` lists the own labels without a counterpart.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    unmapped: tuple[str, ...] = ()
    labels: dict[str, tuple[str, ...]]


class Scheme(BaseModel):
    """An emotion model: its labels in order, the template clause that a label completes, and its source.

    `wheel` lists the labels in their order round a wheel. The keys of `crosswalks` are names of other schemes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    title: str
    kind: Literal["categorical", "ordinal"]
    clause: str = Field(min_length=1, pattern=r"^[^\s\p{Cc},.;]+( [^\s\p{Cc},.;]+)*$")
    source: str
    range: tuple[FiniteFloat, FiniteFloat] | None = None
    labels: tuple[Label, ...] = Field(min_length=2)
    wheel: tuple[str, ...] | None = None
    crosswalks: dict[Name, Crosswalk] = {}

    def __hash__(self) -> int:  # pydantic's own would hash the dict of crosswalks, which has no hash
        return hash((self.name, self.clause, self.label_names))

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
                raise ValueError("a categorical scheme has no range, and its labels have no value: remove them, or set kind = 'ordinal'")
        else:
            if self.range is None or any(v is None for v in values):
                raise ValueError("an ordinal scheme needs a range, and each of its labels needs a value")
            if values != sorted(set(values)):  # type: ignore[type-var]
                raise ValueError("the labels must be in ascending order of their values, each value once")
            if (values[0], values[-1]) != self.range:
                raise ValueError(f"the range is {list(self.range)}, but the labels' values go from {values[0]} to {values[-1]}")
        return self

    @model_validator(mode="after")
    def _check_wheel(self) -> "Scheme":
        if self.wheel is None:
            return self
        if self.kind == "ordinal":
            raise ValueError("an ordinal scheme has no wheel: remove it, since its labels are ordered by value")
        counts = Counter(self._names_of(self.wheel, "wheel"))
        for name in self.label_names:
            if counts[name] != 1:
                raise ValueError(f"wheel: list each label once; '{name}' is {'listed more than once' if counts[name] else 'missing'}")
        return self

    @model_validator(mode="after")
    def _check_crosswalks(self) -> "Scheme":
        for target, crosswalk in self.crosswalks.items():
            where = f"crosswalks.{target}"
            mapped = {name for words in crosswalk.labels.values() for name in self._names_of(words, where)}
            unmapped = set(self._names_of(crosswalk.unmapped, where))
            for name in self.label_names:
                if name in mapped and name in unmapped:
                    raise ValueError(f"{where}: '{name}' is both mapped and unmapped")
                if name not in mapped and name not in unmapped:
                    raise ValueError(f"{where}: '{name}' is missing; map it to a label of {target}, or list it as unmapped")
        return self

    def _names_of(self, words: Iterable[str], where: str) -> list[str]:
        """Return the names of the labels for some words (names or synonyms) at the key `where` of the scheme's file."""
        names = self.label_names
        try:
            return [names[self.label_index(word)] for word in words]
        except SchemeError as error:
            raise ValueError(f"{where}: {error}") from None

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def values(self) -> tuple[float, ...]:
        """The labels' values; empty for a categorical scheme."""
        return tuple(label.value for label in self.labels if label.value is not None)

    @property
    def answers(self) -> int:
        """The number of outputs a regression has for the scheme: one share for each label, or one value for an ordinal scheme."""
        return 1 if self.kind == "ordinal" else len(self.labels)

    @cached_property
    def words(self) -> dict[str, int]:
        """The index of each label by its name and synonyms, case-folded."""
        return {word.casefold(): i for i, label in enumerate(self.labels) for word in (*label.synonyms, label.name)}

    def label_index(self, word: str) -> int:
        """Return the index of a label by its name or a synonym, in any case. Raises SchemeError for an unknown word."""
        folded = word.casefold()
        if folded not in self.words:
            raise SchemeError(f"'{word}' is not a label of {self.name}{did_you_mean(folded, self.words)}: {', '.join(self.label_names)}")
        return self.words[folded]

    @property
    def wheel_distance(self) -> np.ndarray:
        """Steps between labels, the shorter way round the wheel: int64 [labels, labels]. Raises SchemeError if there is no wheel.

        Neighbours are one step apart; the distance from a label to itself is 0. The pairwise emotion distance of Zhao et al.,
        Predicting personalized emotion perceptions of social images, ACM Multimedia 2016, is 1 + these steps, whatever the
        polarities.
        """
        if self.wheel is None:
            raise SchemeError(f"{self.name} has no wheel")
        position = np.argsort([self.label_index(word) for word in self.wheel])
        steps = np.abs(position[:, None] - position)
        return np.minimum(steps, len(position) - steps)

    def crosswalk(self, target: "Scheme") -> np.ndarray:
        """Return the matrix that converts probabilities to the target scheme: float32 [labels, target's labels].

        `probs @ scheme.crosswalk(target)` are the probabilities in the target. A row adds up to one, or is zeros if the label has
        no counterpart; such labels' probability is missing from the product's sum. Without a stated crosswalk, a scheme of
        polarities (polarity2, polarity3) is reached by the labels' own polarity. Raises SchemeError, which lists the possible
        targets, if the target can't be reached.
        """
        shares = np.zeros((len(self.labels), len(target.labels)), np.float32)
        has_polarity = any(label.polarity for label in self.labels)
        if target.name in self.crosswalks:
            for name, words in self.crosswalks[target.name].labels.items():
                shares[[self.label_index(word) for word in words], target.label_index(name)] = 1
        elif has_polarity and all(label.name == label.polarity for label in target.labels):
            shares[:] = [[own.polarity == theirs.polarity for theirs in target.labels] for own in self.labels]
        else:
            known = sorted({*self.crosswalks, *(("polarity2", "polarity3") if has_polarity else ())})
            raise SchemeError(f"{self.name} has no crosswalk to {target.name}; it has {', '.join(known) or 'none'}")
        return shares / np.maximum(shares.sum(1, keepdims=True), 1)


def bundled_schemes() -> tuple[str, ...]:
    """List the names of the schemes bundled with UGRIE."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_scheme(name_or_path: str) -> Scheme:
    """Load a bundled scheme by its name, or a user's own by the path of its TOML file, which may have changed. Raises SchemeError."""
    return _load(Path(name_or_path)) if name_or_path.endswith(".toml") else _load_bundled(name_or_path)


@cache
def _load_bundled(name: str) -> Scheme:
    if name not in (known := bundled_schemes()):
        raise SchemeError(
            f"no scheme is named '{name}'{did_you_mean(name, known)}; the bundled schemes are {', '.join(known)}; "
            "give a scheme of your own as the path of its .toml file"
        )
    return _load(FOLDER / f"{name}.toml")


def _load(path: Path) -> Scheme:
    scheme = _read(path)
    for name in scheme.crosswalks:
        target = FOLDER / f"{name}.toml" if name in bundled_schemes() else path.with_name(f"{name}.toml")
        if not target.is_file():
            raise SchemeError(
                f"{path}: crosswalks.{name}: no scheme is named '{name}'{did_you_mean(name, bundled_schemes())}; "
                "name a bundled scheme, or a .toml file in the same folder"
            )
        try:
            scheme.crosswalk(_read(target))
        except SchemeError as error:
            raise SchemeError(f"{path}: crosswalks.{name}: {error}") from None
    return scheme


def _read(path: Path) -> Scheme:
    """Read a scheme file without checking its crosswalks against the other schemes. Raises SchemeError."""
    try:
        with path.open("rb") as file:
            scheme = Scheme.model_validate(tomllib.load(file))
    except FileNotFoundError:
        raise SchemeError(f"{path}: there is no such scheme file") from None
    except OSError as error:
        raise SchemeError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise SchemeError(f"{path}: {'; '.join(map(_problem, error.errors()))}") from None
    except RecursionError:
        raise SchemeError(f"{path} is not valid TOML: its values are nested too deeply") from None
    except ValueError as error:  # invalid TOML, text or path
        raise SchemeError(f"{path} is not valid TOML: {error}") from None
    if scheme.name != path.stem:
        raise SchemeError(f"{path}: the scheme's name is '{scheme.name}': rename the scheme or the file, since they must agree")
    return scheme


def _problem(error: ErrorDetails) -> str:
    """Format an error of pydantic: the field's place in the file, the message and, for an unknown key, a suggestion."""
    place, key = error["loc"], str(error["loc"][-1]) if error["loc"] else ""
    message = f"{'.'.join(map(str, place)) or 'scheme'}: {error['msg'].removeprefix('Value error, ')}"
    if error["type"] != "extra_forbidden":
        return message
    if len(place) == 1:
        return message + did_you_mean(key, Scheme.model_fields)
    if key in Scheme.model_fields:  # in TOML, a key belongs to the last header above it
        return f"{message} here: move '{key}' above the first [[labels]]"
    return message + did_you_mean(key, (Label if place[0] == "labels" else Crosswalk).model_fields)
