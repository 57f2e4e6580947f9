"""File systems of URIs, and versions of objects."""

import pytest

from pipeline.errors import UserError
from pipeline.storage.filesystem import connect, version_of
from pipeline.storage.uris import protocol


def test_an_unknown_protocol_names_the_one_that_was_meant():
    with pytest.raises(UserError, match=r"'s4://' of s4://bucket/x is no known kind of storage \(did you mean 's3://'\?\)"):
        connect("s4://bucket/x", {})


def test_a_protocol_whose_package_is_not_installed_is_the_users_error():
    with pytest.raises(UserError, match=r"abfs://container/x: .*adlfs"):
        connect("abfs://container/x", {})


def test_storage_options_are_not_for_local_files(tmp_path):
    fs, path = connect(str(tmp_path), {"key": "k", "client_kwargs": {}})
    assert fs.exists(path)


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
    assert version_of(info) == version


@pytest.mark.parametrize("uri", ["s3://x::file:///etc/hostname", "memory://x::file:///etc/hostname", "file:///a::b", "/a::memory://b"])
def test_a_uri_is_never_a_chain(uri):
    fs, path = connect(uri, {"anon": True} if uri.startswith("s3") else {})
    assert protocol(uri) in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
    assert "::" in path


def test_the_case_of_a_protocol_does_not_matter(tmp_path):
    assert connect(f"FILE://{tmp_path}", {})[1] == str(tmp_path)


@pytest.mark.parametrize("uri", ["s4://me:hunter2@bucket/x", "abfs://c@a/x?sig=1"])
def test_what_can_not_be_connected_is_named_without_its_password(uri):
    with pytest.raises(UserError) as refused:
        connect(uri, {})
    assert "hunter2" not in str(refused.value)
