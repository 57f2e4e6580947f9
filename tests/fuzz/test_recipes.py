"""Fuzzes `ugrie.training.recipe.read_recipe`: any recipe is read, or raises RecipeError."""

import tomllib

from hypothesis import strategies as st

from tests.fuzz.inputs import NAMES, changed, mutated, toml
from ugrie.model.checkpoint import FOLDER

FILES = [path.read_bytes() for path in sorted(FOLDER.glob("*/recipe.toml"))]
OWN = {
    "name": "mine",
    "schemes": ["polarity2", "valence"],
    "tower": {"name": "RN50", "pretrained": "openai"},
    "bart": {"d_model": 64, "layers": 1, "heads": 2, "dropout": 0.0},
    "epochs": 3,
    "learning_rate": 0.001,
    "mixup": 0.2,
    "refit": True,
    "data": [
        {
            "path": "photos",
            "delimiter": ";",
            "columns": ["image", "mood"],
            "folders": ["split", "class"],
            "derived": {"theme": {"column": "image", "pattern": "^([a-z]+)"}},
            "schemes": {"valence": {"range": [1, 7]}, "polarity2": {"column": "valence", "cuts": [4]}, "mikels8": {"from": "ekman6"}},
        },
        {"path": "votes", "layout": "fi", "repeat": 2, "schemes": {"polarity2": {"distribution": {"positive": "p", "negative": "n"}}}},
    ],
}
PATTERNS = [
    OWN | {"data": [{"path": "x", "layout": "fi", "derived": {"a": {"column": "b", "pattern": pattern}}}]}
    for pattern in ("(a{99999999999999999999})", "(" * 2000 + ")" * 2000, "(?L)(a)", "(?P<1>a)", "(a)(?i)", r"(\ud800)", "(a*)*" * 500)
]
ODD = [b"\xff\xfe", b"x = " + b"[" * 5000, b"x = 1" + b"0" * 5000, *map(toml, PATTERNS)]


def test_a_recipe_is_read_or_a_recipe_error(explore):
    documents = [OWN, *(tomllib.loads(file.decode()) for file in FILES)]
    files = changed(documents).map(toml) | mutated([*FILES, toml(OWN)]) | st.sampled_from(ODD)
    outcomes = explore("recipe", files, lambda text: ("recipe.toml", {"recipe.toml": text}), 120)
    assert outcomes.keys() == {"valid", "RecipeError"}


def test_a_recipe_of_any_path_is_read_or_a_recipe_error(explore):
    paths = NAMES | st.sampled_from(["x" * 5000, "folder", "recipe.toml", "recipe.toml/x"])
    outcomes = explore("recipe", paths, lambda path: (path, {"recipe.toml": toml(OWN), "folder/x": b""}), 30)
    assert outcomes.keys() <= {"valid", "RecipeError"}
