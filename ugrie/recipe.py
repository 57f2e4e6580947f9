"""A recipe: what a checkpoint is trained on and how, as a TOML file. The bundled checkpoints' lie beside their weights."""

import re
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from ugrie.errors import GivenError
from ugrie.schemes import did_you_mean


class RecipeError(GivenError):
    """A recipe is not as it should be. The message names the field."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Column(_Strict):
    """How a data set's table states a scheme: in one column of labels or ratings, or in one column for each label.

    A column of labels holds names or synonyms, or words of its own that `codes` reads. A rating's `range` is the scale it
    was given on, by default the scheme's own. Votes, counts or probabilities make a label distribution. With `from` what is
    stated is another scheme's, from which a published crosswalk leads to this one; alone, `from` is what the data set states of
    that scheme anyway.
    """

    column: str | None = None  # by default the one with the scheme's name, or `class` in class folders
    from_: str | None = Field(default=None, alias="from")
    distribution: dict[str, str] = {}  # the column with each label's votes or share
    codes: dict[str, str] = {}  # the label that a word of the table stands for
    range: tuple[float, float] | None = None
    cuts: tuple[float, ...] = ()  # makes classes of a number: below the first cut is the first label
    leave_out: tuple[str, ...] = ()  # values that say nothing about this scheme

    model_config = ConfigDict(serialize_by_alias=True)

    @model_validator(mode="after")
    def _check(self) -> "Column":
        if self.distribution and (self.column or self.codes or self.range or self.cuts or self.leave_out):
            raise ValueError("a distribution has a column for each label, and takes no column, codes, range, cuts or leave_out")
        if self.cuts and (self.range or self.codes):
            raise ValueError("cuts are in the numbers of the column: they take no range and no codes")
        if list(self.cuts) != sorted(set(self.cuts)):
            raise ValueError("the cuts must rise")
        return self


class Derived(_Strict):
    """A column made of another: what the first group of a regular expression finds in it."""

    column: str
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _check(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"no regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"a pattern needs one group, for what it finds; this one has {groups}")
        return pattern


class Format(_Strict):
    """How a data set's files are read: a table of labels, Parquet, an .npz, or folders named by class."""

    labels: str | dict[str, str] = "labels.csv"  # the table, or one for each split
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    quote: str = Field(default='"', min_length=1, max_length=1)
    header: bool = True  # whether the table's first line names its columns
    columns: tuple[str, ...] = ()  # names that stand in place of the header's, or for a header
    images: str = "images"  # the folder of a table's images
    file: str = "image"  # the column with the image, or how columns make its file name: "{ID}.jpg"
    folders: tuple[str, ...] = ()  # what the folders above an image say, outermost first: ["split", "class"]
    derived: dict[str, Derived] = {}
    group: str | None = None  # images of one group stay on one side of a split
    splits: tuple[str, ...] = ()  # the values of the column `split` that are taken; by default all
    schemes: dict[str, Column] = {}

    @model_validator(mode="after")
    def _check_format(self) -> "Format":
        if not self.header and not self.columns:
            raise ValueError("a table without a header needs the names of its columns")
        for name, column in self.schemes.items():
            if column.from_ in self.schemes and self.schemes[column.from_].from_:
                raise ValueError(f"{name} is from {column.from_}, which is itself from {self.schemes[column.from_].from_}: name that one")
        return self

    def column(self, scheme: str) -> Column:
        """How the data set states a scheme."""
        column = self.schemes[scheme]
        if column.from_ in self.schemes and not column.model_fields_set - {"from_"}:
            return self.schemes[column.from_].model_copy(update={"from_": column.from_})
        return column


class DataSet(Format):
    """A data set below the data folder; `layout` names a public one, whose files and labels are known (docs/datasets.md)."""

    path: str
    layout: str | None = None
    repeat: int = Field(default=1, ge=1)  # how often an image is seen in an epoch
    balance: str | None = None  # a scheme of classes: images of its rarer ones are seen more often, so that all are seen alike

    @model_validator(mode="after")
    def _check_schemes(self) -> "DataSet":
        if not self.schemes and self.layout is None:
            raise ValueError("a data set needs the schemes it has labels for, or a layout that knows them")
        return self


class Tower(_Strict):
    """An image tower of open_clip: its model, and the tag of its weights. Everything else open_clip knows (`ugrie.towers`)."""

    name: str
    pretrained: str


class Bart(_Strict):
    """The shape of a BART trained from scratch."""

    d_model: int = Field(default=128, gt=0)
    layers: int = Field(default=2, gt=0)
    heads: int = Field(default=4, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_heads(self) -> "Bart":
        if self.d_model % self.heads:
            raise ValueError(f"a d_model of {self.d_model} can't be shared out to {self.heads} heads")
        return self


NAMED, TABLE = "<named>", "<table>"  # in pydantic's errors: which of the two a value was read as


def _named_or_table(value: object) -> str:
    return NAMED if isinstance(value, str) else TABLE


class Recipe(_Strict):
    name: str = Field(min_length=1)
    schemes: tuple[str, ...]
    tower: Annotated[Annotated[str, Tag(NAMED)] | Annotated[Tower, Tag(TABLE)], Discriminator(_named_or_table)]
    data: tuple[DataSet, ...]
    # A shape, or the name or folder of a pretrained one.
    bart: Annotated[Annotated[str, Tag(NAMED)] | Annotated[Bart, Tag(TABLE)], Discriminator(_named_or_table)] = Bart()
    components: int = Field(default=64, gt=0)
    landmarks: int = Field(default=1024, gt=0)
    prefix_length: int = Field(default=4, gt=0)
    hidden: int = Field(default=256, gt=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    batch_size: int = Field(default=64, gt=0)
    epochs: int = Field(default=60, gt=0)
    patience: int = Field(default=10, gt=0)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    validation: float = Field(default=0.15, ge=0, lt=1)
    refit: bool = False  # hold images out to calibrate alone, then train anew on all
    mixup: float = Field(default=0.0, ge=0)
    context_noise: float = Field(default=0.5, ge=0, lt=1)
    form_weight: float = Field(default=0.1, ge=0)  # of everything but the labels in the loss: what free generation needs, and slots do not
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_refit(self) -> "Recipe":
        if self.refit and not self.validation:
            raise ValueError("refit trains anew on the images held out too, and with a validation of 0 none are")
        return self

    @field_validator("tower")
    @classmethod
    def _check_tower(cls, tower: str | Tower) -> str | Tower:
        if isinstance(tower, str) and tower != "lite0":
            raise ValueError(
                f"'{tower}' is no tower{did_you_mean(tower, ['lite0'])}: it is lite0, or a table with open_clip's name and pretrained"
            )
        return tower


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe. Raises RecipeError."""
    try:
        with open(path, "rb") as file:
            recipe = Recipe.model_validate(tomllib.load(file))
    except OSError as error:
        raise RecipeError(
            f"there is no recipe at {path}" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
        ) from None
    except ValidationError as error:
        raise RecipeError(f"{path}: {'; '.join(map(_problem, error.errors()))}") from None
    except RecursionError:
        raise RecipeError(f"{path}: its values are nested too deeply") from None
    except ValueError as error:  # no TOML, no text, or no path
        raise RecipeError(f"{path}: {error}") from None
    for what in ("schemes", "data"):
        if not getattr(recipe, what):
            raise RecipeError(f"{path}: {what}: there must be at least one")
    return recipe


def _problem(error: ErrorDetails) -> str:
    """What pydantic found, with the field's place in the file and, for an unknown key, the one that may have been meant."""
    place = [part for part in error["loc"] if part not in (NAMED, TABLE)]
    message = f"{'.'.join(map(str, place))}: {error['msg']}"
    if error["type"] != "extra_forbidden":
        return message
    key = str(place[-1])
    if len(place) > 1 and key in Recipe.model_fields:  # in TOML, a key belongs to the last header above it
        return f"{message} here; '{key}' stands above the first [header]"
    around = str(next((part for part in reversed(place[:-1]) if part in PARTS), ""))
    return message + did_you_mean(key, PARTS[around].model_fields)


PARTS: dict[str, type[BaseModel]] = {"": Recipe, "tower": Tower, "bart": Bart, "data": DataSet, "schemes": Column, "derived": Derived}
