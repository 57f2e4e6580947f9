"""Files from URLs that are kept on this machine."""

import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import UserError
from pipeline.storage import download_cache
from pipeline.storage.download_cache import fetched


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Two files by their URLs, and an empty machine to fetch them to."""
    (tmp_path / "source").mkdir()
    (tmp_path / "machine").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "machine"))
    for name in ("a", "b"):
        (tmp_path / "source" / name).write_bytes(name.encode() * 1000)
    return {name: f"file://{tmp_path}/source/{name}" for name in ("a", "b")}


@pytest.fixture
def gets(monkeypatch):
    """The names of the files that are fetched, as they are."""
    names, get_file = [], LocalFileSystem.get_file

    def counted(self, path, target, *arguments, **settings):
        names.append(Path(path).name)
        return get_file(self, path, target, *arguments, **settings)

    monkeypatch.setattr(LocalFileSystem, "get_file", counted)
    return names


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


WHOLE = {"a": b"a" * 1000, "b": b"b" * 1000}


def test_files_are_fetched_once_into_a_folder_that_is_the_users_alone(source, gets):
    folder = fetched(source, {})
    assert content(folder) == WHOLE
    assert fetched(source, {}) == folder
    assert gets == ["a", "b"]
    assert folder.parent == Path(tempfile.gettempdir()) / f"ugrie-{os.getuid()}"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)] == [0o700, 0o700]


def test_of_many_that_ask_at_once_one_fetches(source, gets):
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: fetched(source, {}), range(8)))
    assert len(folders) == 1
    assert sorted(gets) == ["a", "b"]


def test_another_version_is_fetched_beside_the_first(source, tmp_path):
    before = fetched(source, {})
    (tmp_path / "source" / "b").write_bytes(b"c" * 1000)
    os.utime(tmp_path / "source" / "b", (1, 1))
    after = fetched(source, {})
    assert content(after) == WHOLE | {"b": b"c" * 1000}
    assert content(before) == WHOLE


def damage(folder):
    (folder / "b").write_bytes(b"b" * 999 + b"x")


def cut(folder):
    (folder / "b").write_bytes(b"")


def lose(folder):
    (folder / "b").unlink()


@pytest.mark.parametrize("spoil", [damage, cut, lose], ids=lambda spoil: spoil.__name__)
def test_what_was_damaged_is_fetched_again(source, gets, spoil):
    spoil(fetched(source, {}))
    folder = fetched(source, {})
    assert content(folder) == WHOLE
    assert len(gets) == 4
    assert fetched(source, {}) == folder
    assert len(gets) == 4


def test_what_a_process_that_died_had_half_fetched_is_removed(source, tmp_path):
    own = fetched(source, {}).parent
    (own / ".half").mkdir()
    (own / ".half" / "a").write_bytes(b"a")
    fetched({"a": source["a"]}, {})
    assert not (own / ".half").exists()


def test_those_taken_last_are_kept(source, monkeypatch):
    monkeypatch.setattr(download_cache, "KEPT", 2)
    first, second = fetched({"a": source["a"]}, {}), fetched({"b": source["b"]}, {})
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert fetched({"a": source["a"]}, {}) == first
    third = fetched(source, {})
    assert {path for path in third.parent.iterdir() if path.is_dir()} == {first, third}


def writable(folder, elsewhere):
    folder.mkdir()
    folder.chmod(0o777)


def a_link(folder, elsewhere):
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)


def a_file(folder, elsewhere):
    folder.touch(mode=0o600)


@pytest.mark.parametrize("make", [writable, a_link, a_file], ids=lambda make: make.__name__)
def test_a_folder_that_others_may_have_made_is_refused(source, tmp_path, make):
    make(Path(tempfile.gettempdir()) / f"ugrie-{os.getuid()}", tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"ugrie-\d+, which is not this user's alone: remove it, or set TMPDIR to another folder"):
        fetched(source, {})


def test_a_file_that_is_not_there_is_named_and_nothing_is_left(source):
    with pytest.raises(UserError, match=r"source/a\.gone can't be fetched: .*; check the address and the credentials"):
        fetched(source | {"b": f"{source['a']}.gone"}, {})
    assert list(Path(tempfile.gettempdir()).glob("*/*-*")) == []


def test_a_file_that_changes_meanwhile_is_no_entry(source, gets, tmp_path, monkeypatch):
    get_file = LocalFileSystem.get_file

    def changing(self, path, target):
        get_file(self, path, target)
        Path(path).write_bytes(b"another")

    monkeypatch.setattr(LocalFileSystem, "get_file", changing)
    with pytest.raises(UserError, match="source/a changed while it was fetched: try again"):
        fetched(source, {})
    assert [path.name for path in (Path(tempfile.gettempdir()) / f"ugrie-{os.getuid()}").iterdir()] == ["lock"]


def test_an_address_shows_no_secrets(monkeypatch, source):
    with pytest.raises(UserError) as refused:
        fetched({"a": "ftp://user:hunter2@127.0.0.1:1/a"}, {})
    assert "hunter2" not in str(refused.value)
