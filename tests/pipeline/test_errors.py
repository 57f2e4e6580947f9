"""The three kinds of failure."""

import pickle
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import pipeline
from pipeline.errors import MESSAGE_LENGTH, STATUSES, ImageError, StorageError


def test_every_status_that_is_raised_is_explained():
    sources = [path.read_text() for path in Path(pipeline.__file__).parent.rglob("*.py")]
    raised = {status for source in sources for status in re.findall(r'ImageError\(\s*"(\w+)"', source)}
    assert len(raised) > 5
    assert raised | {"ok"} == set(STATUSES)


def test_an_images_error_has_its_status_and_its_message():
    error = ImageError("missing", "there is no such object")
    assert (error.status, str(error)) == ("missing", "there is no such object")


def test_every_status_is_in_the_docs():
    docs = (Path(pipeline.__file__).parents[1] / "docs" / "tables.md").read_text()
    listed = docs.split("## Statuses")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE) == list(STATUSES)


def test_errors_pass_between_processes():
    error = pickle.loads(pickle.dumps(ImageError("changed", "it is another")))
    assert (type(error), error.status, str(error)) == (ImageError, "changed", "it is another")
    assert str(pickle.loads(pickle.dumps(StorageError("renew them")))) == "renew them"


@given(st.text() | st.text(min_size=490, max_size=3000))
def test_an_images_message_is_one_printable_line_and_not_long(text):
    message = str(ImageError("unreadable", text))
    assert len(message) <= MESSAGE_LENGTH
    assert message.isprintable()
