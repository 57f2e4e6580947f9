"""A recipe: what a checkpoint is trained on and how, as a TOML file. The bundled checkpoints' lie beside their weights."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class RecipeError(ValueError):
    """A recipe is not as it should be. The message names the field."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(_Strict):
    """How a table's column states a scheme. A rating's `range` is the scale it was given on, by default the scheme's own."""

    column: str | None = None  # by default the scheme's name
    range: tuple[float, float] | None = None
    cuts: tuple[float, ...] = ()  # makes classes of a number: below the first cut is the first label
    leave_out: tuple[str, ...] = ()  # values that say nothing about this scheme


class DataSet(_Strict):
    """A folder of images with a table of labels, or an .npz with `embedding` and one array a scheme."""

    path: str
    labels: str = "labels.csv"
    images: str = "images"
    file: str = "image"  # the column with the image's file name
    group: str | None = None  # images of one group stay on one side of a split
    repeat: int = Field(default=1, ge=1)  # how often an image is seen in an epoch
    schemes: dict[str, Column]


class Bart(_Strict):
    """The shape of a BART trained from scratch."""

    d_model: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1


class Recipe(_Strict):
    name: str
    schemes: tuple[str, ...]
    tower: str
    data: tuple[DataSet, ...]
    bart: Bart = Bart()
    components: int = 64
    prefix_length: int = 4
    hidden: int = 256
    dropout: float = 0.3
    batch_size: int = 64
    epochs: int = 60
    patience: int = 10
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    validation: float = Field(default=0.15, gt=0, lt=1)
    mixup: float = 0.0
    context_noise: float = 0.5
    form_weight: float = 0.1  # of everything but the labels in the loss: what free generation needs, and slots do not
    seed: int = 0


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe. Raises RecipeError."""
    try:
        with open(path, "rb") as file:
            return Recipe.model_validate(tomllib.load(file))
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe at {path}") from None
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        problems = (
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            if isinstance(error, ValidationError)
            else error
        )
        raise RecipeError(f"{path}: {problems}") from None
