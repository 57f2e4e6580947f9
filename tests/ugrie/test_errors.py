"""An error about a user's input is one printable line, whatever the input."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ugrie.data.table import DataError
from ugrie.errors import GivenError
from ugrie.model.checkpoint import CheckpointError
from ugrie.schemes.scheme import SchemeError
from ugrie.schemes.template import TemplateError
from ugrie.text import LONGEST, one_line
from ugrie.training.recipe import RecipeError
from ugrie.vision.int8 import Int8Error


@given(st.text() | st.text().map(lambda text: text * 500))
def test_any_text_becomes_one_printable_line_that_is_not_long(text):
    line = one_line(text)
    assert len(line) <= LONGEST
    assert line.isprintable()
    assert one_line(line) == line == line.encode().decode()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("recipe.toml: epochs: Field required", "recipe.toml: epochs: Field required"),
        ("two\n  lines\u2028and\u00a0more ", "two lines and more"),
        ("no label is named '\x1b[2J\0é'", r"no label is named '\x1b[2J\x00é'"),
        ("caf\udce9.toml", r"caf\udce9.toml"),
    ],
)
def test_spaces_are_one_and_what_can_not_be_printed_is_escaped(text, line):
    assert one_line(text) == line


def test_a_long_message_keeps_its_beginning_and_its_end():
    line = one_line(f"no scheme is named '{'x' * 5000}'; the bundled schemes are arousal and valence")
    assert len(line) == LONGEST
    assert line.startswith("no scheme is named 'xxx")
    assert " … " in line
    assert line.endswith("xxx'; the bundled schemes are arousal and valence")


@pytest.mark.parametrize("kind", [CheckpointError, DataError, Int8Error, RecipeError, SchemeError, TemplateError])
def test_every_error_of_what_was_given_is_one_line_and_survives_its_way_between_processes(kind):
    error = pickle.loads(pickle.dumps(kind("a\nb")))
    assert isinstance(error, GivenError)
    assert (type(error), str(error)) == (kind, "a b")
