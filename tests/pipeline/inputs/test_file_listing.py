"""The files that an input names; tests/pipeline/sources/test_source.py lists them as images."""

from collections import Counter

import fsspec
import pytest

from pipeline.errors import UserError
from pipeline.inputs.file_listing import FileListing, left_out_text
from tests.plugins.listing import write


def test_a_folder_that_holds_only_what_is_left_out_says_what(tmp_path):
    write(tmp_path, "_SUCCESS", ".DS_Store")
    listing = FileListing(fsspec.filesystem("file"), str(tmp_path), {}, Counter())
    with pytest.raises(UserError, match=r"nothing found at .* but 2 x hidden or a marker: check the path"):
        list(listing.files(str(tmp_path)))


def test_what_is_left_out_is_counted_in_digits_that_can_be_read():
    assert left_out_text({"a": 12_345, "b": 1}) == "12,345 x a, 1 x b"
