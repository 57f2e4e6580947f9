"""A file is written completely or not at all."""

import pytest

from ugrie.atomic import write_whole


def test_a_writing_that_fails_leaves_what_was_there(tmp_path):
    file = tmp_path / "deep" / "state"
    write_whole(file, lambda part: part.write_text("first"))

    def fail(part):
        part.write_text("sec")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_whole(file, fail)
    assert file.read_text() == "first"
    write_whole(file, lambda part: part.write_text("second"))
    assert [path.name for path in file.parent.iterdir()] == ["state"]
    assert file.read_text() == "second"
