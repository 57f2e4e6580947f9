"""A recipe is read completely or rejected with the name of the key."""

import re

import pytest

from ugrie.model.checkpoint import FOLDER
from ugrie.schemes.scheme import load_scheme
from ugrie.training.recipe import Bart, Recipe, RecipeError, Tower, read_recipe

GOOD = """
name = "mine"
schemes = ["polarity2", "valence"]
tower = "lite2"

[[data]]
path = "photos"

[data.schemes]
valence = { range = [1, 7] }
polarity2 = { column = "valence", cuts = [4] }
"""


@pytest.fixture
def recipe_file(tmp_path):
    """Writes recipe.toml and returns its path."""

    def write(text):
        path = tmp_path / "recipe.toml"
        path.write_text(text)
        return path

    return write


def test_a_recipe_says_what_is_trained_on_what(recipe_file):
    recipe = read_recipe(recipe_file(GOOD))
    assert recipe.schemes == ("polarity2", "valence")
    (data,) = recipe.data
    assert (data.path, data.labels, data.images, data.file) == ("photos", "labels.csv", "images", "image")
    assert data.schemes["polarity2"].column == "valence"
    assert data.schemes["polarity2"].cuts == (4.0,)
    assert data.schemes["valence"].range == (1.0, 7.0)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/recipe.toml")), ids=lambda path: path.parent.name)
def test_the_recipe_beside_a_bundled_checkpoint_is_of_that_checkpoint(path):
    recipe = read_recipe(path)
    assert recipe.name == path.parent.name
    schemes = {name: load_scheme(name) for name in recipe.schemes}
    for data in recipe.data:
        assert set(data.schemes) <= set(schemes)
        for name, column in data.schemes.items():
            assert not column.cuts or len(column.cuts) == len(schemes[name].labels) - 1


def test_there_is_a_bundled_recipe():
    assert list(FOLDER.glob("*/recipe.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "mine"', "name = mine", "Invalid value"),
        ('name = "mine"\n', "", "name: Field required"),
        ('tower = "lite2"\n', "", "tower: Field required"),
        ('tower = "lite2"', 'tower = "lite2"\nepoch = 3', "epoch: unknown key"),
        ('tower = "lite2"', 'tower = "lite2"\nepochs = "many"', "epochs: Input should be a valid integer"),
        ('tower = "lite2"', 'tower = "lite2"\nvalidation = 1.0', "validation: Input should be less than 1"),
        ('tower = "lite2"', 'tower = "lite2"\nepoch = 3', "epoch: unknown key (did you mean 'epochs'?)"),
        ('tower = "lite2"', 'tower = "lite2"\ncontext_noise = 1', "context_noise: Input should be less than 1"),
        ('tower = "lite2"', 'tower = "lite2"\nbart = { width = 3 }', "bart.width: unknown key"),
        ('tower = "lite2"', 'tower = "lite2"\nbart = { layer = 3 }', "bart.layer: unknown key (did you mean 'layers'?)"),
        (
            'tower = "lite2"',
            'tower = "lite2"\nbart = { heads = 3 }',
            "bart: a d_model of 128 can't be divided among 3 heads: make it a multiple of heads",
        ),
        (
            'tower = "lite2"',
            'tower = "lite2"\nbart = { epochs = 3 }',
            "bart.epochs: unknown key: move 'epochs' above the first [header]",
        ),
        ('tower = "lite2"', 'tower = "lite1"', "tower: there is no tower 'lite1' (did you mean 'lite2'?): give lite2, or a table"),
        ('tower = "lite2"', 'tower = { name = "ViT-L-14" }', "tower.pretrained: Field required"),
        (
            'tower = "lite2"',
            'tower = { name = "a", pretraind = "b" }',
            "pretraind: unknown key (did you mean 'pretrained'?)",
        ),
        ('tower = "lite2"', 'tower = "lite2"\nlearning_rate = inf', "learning_rate: Input should be a finite number"),
        ("range = [1, 7]", "range = [1, nan]", "data.0.schemes.valence.range.1: Input should be a finite number"),
        ('schemes = ["polarity2", "valence"]', "schemes = []", "schemes: there must be at least one"),
        ('path = "photos"\n', "", "data.0.path: Field required"),
        ('path = "photos"', 'path = "photos"\nrepeat = 0', "data.0.repeat: Input should be greater than or equal to 1"),
        (
            'tower = "lite2"',
            'tower = "lite2"\nrefit = true\nvalidation = 0',
            "refit calibrates on held-out images, and with a validation of 0 there are none",
        ),
        ("range = [1, 7]", "range = [1]", "data.0.schemes.valence.range.1: Field required"),
        ("range = [1, 7]", "scale = [1, 7]", "data.0.schemes.valence.scale: unknown key"),
        ("cuts = [4]", "cut = [4]", "data.0.schemes.polarity2.cut: unknown key (did you mean 'cuts'?)"),
        (
            'path = "photos"',
            'path = "photos"\nfoldrs = ["class"]',
            "data.0.foldrs: unknown key (did you mean 'folders'?)",
        ),
    ],
)
def test_a_wrong_recipe_is_named_with_its_field(recipe_file, old, new, message):
    assert old in GOOD
    path = recipe_file(GOOD.replace(old, new, 1))
    with pytest.raises(RecipeError, match=rf"^{re.escape(str(path))}: .*{re.escape(message)}"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('path = "photos"', "data.0: a data set needs `schemes`, those it has labels for, or a `layout` that states them"),
        (
            'path = "x"\nheader = false\nlayout = "fi"',
            "data.0: a table without a header needs `columns`, the names of its columns",
        ),
        ('path = "x"\ndelimiter = "||"\nlayout = "fi"', "data.0.delimiter: String should have at most 1 character"),
        (
            'path = "x"\nschemes.polarity2 = { cuts = [5, 4] }',
            "data.0.schemes.polarity2: the cuts must be in ascending order, each once",
        ),
        (
            'path = "x"\nschemes.polarity2 = { cuts = [4], range = [1, 7] }',
            "data.0.schemes.polarity2: cuts apply to the column's own numbers",
        ),
        (
            'path = "x"\nschemes.polarity2 = { column = "a", distribution = { positive = "b" } }',
            "data.0.schemes.polarity2: a distribution names a column for each label: remove column",
        ),
        (
            'path = "x"\nschemes = { a = { from = "b" }, b = { from = "c" } }',
            "data.0: a is from b, which is itself from c: use that one",
        ),
        (
            'path = "x"\nlayout = "fi"\nderived.theme = { column = "image", pattern = "(a" }',
            "data.0.derived.theme.pattern: not a regular expression: missing )",
        ),
        (
            'path = "x"\nlayout = "fi"\nderived.theme = { column = "image", pattern = "(a{99999999999})" }',
            "data.0.derived.theme.pattern: not a regular expression: the repetition number is too large",
        ),
        (
            'path = "x"\nlayout = "fi"\nderived.theme = { column = "image", pattern = "a" }',
            "data.0.derived.theme.pattern: a pattern needs one group, which captures the value; this one has 0",
        ),
    ],
)
def test_a_data_set_that_contradicts_itself_is_named(recipe_file, given, message):
    path = recipe_file(GOOD.partition("path =")[0] + given)
    with pytest.raises(RecipeError, match=rf"^{re.escape(str(path))}: .*{re.escape(message)}"):
        read_recipe(path)


def test_a_scheme_may_be_from_another(recipe_file):
    given = 'path = "x"\nschemes = { mikels8 = { column = "mood" }, polarity2 = { from = "mikels8" }, polarity3 = { from = "ekman6" } }'
    recipe = read_recipe(recipe_file(GOOD.partition("path =")[0] + given))
    (data,) = recipe.data
    assert (data.column("polarity2").column, data.column("polarity2").from_) == ("mood", "mikels8")
    assert (data.column("polarity3").column, data.column("polarity3").from_) == (None, "ekman6")
    assert recipe == Recipe.model_validate(recipe.model_dump())


def test_a_recipe_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError, match=re.escape(f"there is no recipe at {tmp_path / 'none.toml'}")):
        read_recipe(tmp_path / "none.toml")


def test_a_recipe_that_is_a_folder_or_no_text_is_named(tmp_path):
    with pytest.raises(RecipeError, match=re.escape(f"{tmp_path}: Is a directory")):
        read_recipe(tmp_path)
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=re.escape(f"{tmp_path / 'recipe.toml'}: 'utf-8' codec can't decode")):
        read_recipe(tmp_path / "recipe.toml")


def test_a_recipe_that_is_nested_without_end_is_named(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("schemes = " + "[" * 5000)
    with pytest.raises(RecipeError, match=re.escape(f"{path}: its values are nested too deeply")):
        read_recipe(path)


def test_a_tower_and_a_bart_are_a_name_or_a_table(recipe_file):
    recipe = read_recipe(recipe_file(GOOD))
    assert (recipe.tower, recipe.bart) == ("lite2", Bart())
    tables = 'tower = { name = "RN50", pretrained = "openai" }\nbart = "facebook/bart-base"'
    recipe = read_recipe(recipe_file(GOOD.replace('tower = "lite2"', tables)))
    assert (recipe.tower, recipe.bart) == (Tower(name="RN50", pretrained="openai"), "facebook/bart-base")


def test_a_recipe_is_a_value(recipe_file):
    recipe = read_recipe(recipe_file(GOOD))
    assert recipe == Recipe.model_validate(recipe.model_dump())
