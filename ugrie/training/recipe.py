"""A recipe: what a checkpoint is trained on and how, as a TOML file. The bundled checkpoints' lie beside their weights."""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from ugrie.data.format import Column, DataSet, Derived, Strict
from ugrie.errors import GivenError
from ugrie.text import did_you_mean


class RecipeError(GivenError):
    """A recipe is not as it should be. The message names the field."""


class Tower(Strict):
    """An image tower of open_clip: its model, and the tag of its weights. open_clip knows the rest (`ugrie.training.towers`)."""

    name: str
    pretrained: str


class Bart(Strict):
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


class Recipe(Strict):
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
