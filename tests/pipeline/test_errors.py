"""The two kinds of failure."""

import re
from pathlib import Path

import pipeline
from pipeline.errors import STATUSES, ImageError


def test_every_status_that_is_raised_is_explained():
    sources = [path.read_text() for path in Path(pipeline.__file__).parent.glob("*.py")]
    raised = {status for source in sources for status in re.findall(r'ImageError\(\s*"(\w+)"', source)}
    assert len(raised) > 5
    assert raised | {"ok"} == set(STATUSES)


def test_an_images_error_has_its_status_and_its_message():
    error = ImageError("missing", "there is no such object")
    assert (error.status, str(error)) == ("missing", "there is no such object")
