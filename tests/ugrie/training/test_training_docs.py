"""docs/training.md describes every key of a recipe with its default, and its example is valid."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from ugrie.model.checkpoint import FILES
from ugrie.training.kernel_ridge import LANDMARKS
from ugrie.training.recipe import Bart, Recipe, Tower, read_recipe

TEXT = (Path(__file__).parents[3] / "docs" / "training.md").read_text()


def rows(header: str) -> dict[str, str]:
    """The keys of a table, each with the cell beside it."""
    table = TEXT.partition(f"| {header} |")[2].partition("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| ?([^|]*?) \|", table, re.MULTILINE))


@pytest.mark.parametrize(("header", "model"), [("key", Recipe), ("key of `[tower]`", Tower), ("key of `[bart]`", Bart)])
def test_every_key_is_described(header: str, model: type[BaseModel]):
    assert list(rows(header)) == list(model.model_fields)


@pytest.mark.parametrize(("header", "model"), [("key", Recipe), ("key of `[bart]`", Bart)])
def test_every_default_is_what_is_taken(header: str, model: type[BaseModel]):
    for key, default in rows(header).items():
        field = model.model_fields[key]
        if field.is_required():
            assert default == "", key
        elif key == "landmarks":
            assert default == "{} to {}".format(*LANDMARKS)
        elif isinstance(field.default, BaseModel):
            assert default == "a table", key
        else:
            assert default == (str(field.default).lower() if isinstance(field.default, bool) else str(field.default)), (
                key
            )  # as TOML writes it


def test_the_example_is_a_recipe(tmp_path):
    example = TEXT.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "recipe.toml").write_text(example)
    recipe = read_recipe(tmp_path / "recipe.toml")
    assert recipe.schemes == ("ekman6", "valence", "quadrant4.toml")
    assert len(recipe.data) == 2


def test_what_is_written_is_listed():
    """tests/ugrie/training/test_run.py compares the same list with a folder."""
    listed = re.findall(r"^\| `([\w.]+)` \|", TEXT.partition("| file |")[2], re.MULTILINE)
    assert set(listed) == {*FILES, "MODEL_CARD.md", "training.json", "training.png"}
