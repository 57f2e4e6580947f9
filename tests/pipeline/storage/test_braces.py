"""Braces in paths."""

import pytest

from pipeline.errors import UserError
from pipeline.storage.braces import expand_braces


@pytest.mark.parametrize(
    ("path", "paths"),
    [
        ("a.tar", ["a.tar"]),
        ("{000..002}.tar", ["000.tar", "001.tar", "002.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b{c,d},a}/{1..2}", ["a/1", "a/2", "bc/1", "bc/2", "bd/1", "bd/2"]),
        ("{a}{}{..}{b", ["{a}{}{..}{b"]),
    ],
)
def test_braces_stand_for_what_they_do_in_a_shell(path, paths):
    assert expand_braces(path) == paths


@pytest.mark.parametrize("path", ["{0..99999999999}", "{0..999}{0..999}", "{a,b}" * 30])
def test_braces_that_stand_for_too_many_paths_are_refused(path):
    with pytest.raises(UserError, match="stands for more than 100,000 paths"):
        expand_braces(path)
