"""Files anywhere fsspec reaches."""

import fsspec
import pytest

from pipeline import storage
from pipeline.errors import UserError


def test_an_unknown_protocol_names_the_one_that_was_meant():
    with pytest.raises(UserError, match=r"'s4://' of s4://bucket/x is no known kind of storage \(did you mean 's3://'\?\)"):
        storage.connect("s4://bucket/x", {})


def test_a_protocol_whose_package_is_not_installed_is_the_users_error():
    with pytest.raises(UserError, match=r"abfs://container/x: .*adlfs"):
        storage.connect("abfs://container/x", {})


def test_storage_options_are_not_for_local_files(tmp_path):
    fs, path = storage.connect(str(tmp_path), {"key": "k", "client_kwargs": {}})
    assert fs.exists(path)


def test_writing_makes_the_folders_and_leaves_nothing_beside_the_file(tmp_path):
    fs, path = storage.connect(str(tmp_path / "a" / "b" / "rows.parquet"), {})
    storage.write_atomic(fs, path, b"first")
    storage.write_atomic(fs, path, b"second")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "a" / "b").iterdir()] == [("rows.parquet", b"second")]


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    fs, path = storage.connect(str(tmp_path / "rows.parquet"), {})
    storage.write_atomic(fs, path, b"old")
    with pytest.raises(TypeError):
        storage.write_atomic(fs, path, "no bytes")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("rows.parquet", b"old")]


def test_writing_works_on_other_kinds_of_storage():
    fs, path = storage.connect("memory://storage-test/deep/file", {})
    storage.write_atomic(fs, path, b"data")
    assert fsspec.filesystem("memory").cat_file("/storage-test/deep/file") == b"data"


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"ETag": '"abc"', "size": 3, "mtime": 1.5}, "abc"),
        ({"etag": "abc-2", "size": 3}, "abc-2"),
        ({"mtime": 1.5, "size": 3}, "1.5-3"),
        ({"LastModified": "today", "size": 3}, "today-3"),
        ({"size": 3}, "-3"),
    ],
)
def test_the_version_is_the_etag_or_else_time_and_size(info, version):
    assert storage.version_of(info) == version
