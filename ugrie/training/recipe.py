"""A recipe: the TOML file that states what a checkpoint is trained on and how (docs/training.md describes every key).

The recipes of the bundled checkpoints lie beside their weights.
"""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from ugrie.data.format import Column, DataSet, Derived, Strict
from ugrie.errors import GivenError
from ugrie.text import did_you_mean


class RecipeError(GivenError):
    """A recipe, or what it names, is wrong. The message names the key."""


class Tower(Strict):
    """An image tower of open_clip: its model, and the tag of its weights. open_clip knows the rest (`ugrie.training.towers`)."""

    name: str
    pretrained: str


class Bart(Strict):
    """The shape of a BART that is trained from scratch."""

    d_model: int = Field(default=128, gt=0)
    layers: int = Field(default=2, gt=0)
    heads: int = Field(default=4, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_heads(self) -> "Bart":
        if self.d_model % self.heads:
            raise ValueError(f"a d_model of {self.d_model} can't be divided among {self.heads} heads: make it a multiple of heads")
        return self


NAMED, TABLE = "<named>", "<table>"  # tags by which pydantic's errors say whether a value was read as a name or as a table


def _named_or_table(value: object) -> str:
    return NAMED if isinstance(value, str) else TABLE


class Recipe(Strict):
    """The keys of a recipe with their defaults."""

    name: str = Field(min_length=1)
    schemes: tuple[str, ...]
    tower: Annotated[Annotated[str, Tag(NAMED)] | Annotated[Tower, Tag(TABLE)], Discriminator(_named_or_table)]
    data: tuple[DataSet, ...]
    # A shape, or the name or folder of a pretrained one.
    bart: Annotated[Annotated[str, Tag(NAMED)] | Annotated[Bart, Tag(TABLE)], Discriminator(_named_or_table)] = Bart()
    components: int = Field(default=64, gt=0)
    landmarks: int | None = Field(default=None, gt=0)  # None: as many as suit the number of labelled images
    prefix_length: int = Field(default=4, gt=0)
    hidden: int = Field(default=256, gt=0)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    batch_size: int = Field(default=64, gt=0)
    epochs: int = Field(default=60, gt=0)
    patience: int = Field(default=10, gt=0)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    validation: float = Field(default=0.15, ge=0, lt=1)
    refit: bool = False  # use the held-out images for calibration alone, then train again on all images
    mixup: float = Field(default=0.0, ge=0)
    context_noise: float = Field(default=0.5, ge=0, lt=1)
    form_weight: float = Field(default=0.1, ge=0)  # of the text around the labels, which free generation needs and slot filling does not
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_refit(self) -> "Recipe":
        if self.refit and not self.validation:
            raise ValueError("refit calibrates on held-out images, and with a validation of 0 there are none: raise it or leave refit out")
        return self

    @field_validator("tower")
    @classmethod
    def _check_tower(cls, tower: str | Tower) -> str | Tower:
        if isinstance(tower, str) and tower != "lite0":
            raise ValueError(
                f"there is no tower '{tower}'{did_you_mean(tower, ['lite0'])}: give lite0, or a table with open_clip's name and pretrained"
            )
        return tower


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe. Raises RecipeError."""
    try:
        with open(path, "rb") as file:
            recipe = Recipe.model_validate(tomllib.load(file))
    except OSError as error:
        raise RecipeError(
            f"there is no recipe at {path}" if isinstance(error, FileNotFoundError) else f"{path}: {error.strerror}"
        ) from None
    except ValidationError as error:
        raise RecipeError(f"{path}: {'; '.join(map(_describe, error.errors()))}") from None
    except RecursionError:
        raise RecipeError(f"{path}: its values are nested too deeply") from None
    except ValueError as error:  # not TOML, not UTF-8, or not a valid path
        raise RecipeError(f"{path}: {error}") from None
    for key in ("schemes", "data"):
        if not getattr(recipe, key):
            raise RecipeError(f"{path}: {key}: there must be at least one")
    return recipe


def _describe(error: ErrorDetails) -> str:
    """Return a validation error as text: the key's place in the file, what is wrong, and for an unknown key the likely one."""
    place = [part for part in error["loc"] if part not in (NAMED, TABLE)]
    dotted = ".".join(map(str, place))
    if error["type"] != "extra_forbidden":
        return ": ".join(filter(None, (dotted, error["msg"].removeprefix("Value error, "))))
    key = str(place[-1])
    if len(place) > 1 and key in Recipe.model_fields:  # in TOML, a key belongs to the last header above it
        return f"{dotted}: unknown key: move '{key}' above the first [header]"
    table = str(next((part for part in reversed(place[:-1]) if part in MODELS), ""))
    return f"{dotted}: unknown key{did_you_mean(key, MODELS[table].model_fields)}"


MODELS: dict[str, type[BaseModel]] = {"": Recipe, "tower": Tower, "bart": Bart, "data": DataSet, "schemes": Column, "derived": Derived}
