"""The local cache of files from URLs."""

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import UserError
from pipeline.storage import download_cache
from pipeline.storage.download_cache import download


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of an empty cache."""
    monkeypatch.setenv("UGRIE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def source(tmp_path, cache):
    """Two files by their URLs, to download into an empty cache."""
    (tmp_path / "source").mkdir()
    for name in ("a", "b"):
        (tmp_path / "source" / name).write_bytes(name.encode() * 1000)
    return {name: f"file://{tmp_path}/source/{name}" for name in ("a", "b")}


@pytest.fixture
def gets(monkeypatch):
    """A list of the names of the files downloaded."""
    names, get_file = [], LocalFileSystem.get_file

    def counted(self, path, target, *arguments, **settings):
        names.append(Path(path).name)
        return get_file(self, path, target, *arguments, **settings)

    monkeypatch.setattr(LocalFileSystem, "get_file", counted)
    return names


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


WHOLE = {"a": b"a" * 1000, "b": b"b" * 1000}


def test_files_are_fetched_once_into_a_folder_that_is_the_users_alone(source, gets, cache):
    folder = download(source, {})
    assert content(folder) == WHOLE
    assert download(source, {}) == folder
    assert gets == ["a", "b"]
    assert folder.parent == cache
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)] == [0o700, 0o700]


def test_of_many_that_ask_at_once_one_fetches(source, gets):
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: download(source, {}), range(8)))
    assert len(folders) == 1
    assert sorted(gets) == ["a", "b"]


def test_another_version_is_fetched_beside_the_first(source, tmp_path):
    before = download(source, {})
    (tmp_path / "source" / "b").write_bytes(b"c" * 1000)
    os.utime(tmp_path / "source" / "b", (1, 1))
    after = download(source, {})
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
    spoil(download(source, {}))
    folder = download(source, {})
    assert content(folder) == WHOLE
    assert len(gets) == 4
    assert download(source, {}) == folder
    assert len(gets) == 4


def test_what_a_process_that_died_had_half_fetched_is_removed(source, cache):
    half = cache / f"{download_cache.DRAFT}half"
    cache.mkdir(mode=0o700, parents=True)
    half.mkdir()
    (half / "a").write_bytes(b"a")
    download({"a": source["a"]}, {})
    assert not half.exists()


def test_a_process_that_was_killed_leaves_no_lock(source, cache):
    cache.mkdir(mode=0o700, parents=True)
    program = "import sys, time, filelock; filelock.FileLock(sys.argv[1]).acquire(); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program, str(cache / "lock")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
    assert content(download(source, {})) == WHOLE


def test_a_disk_without_locks_is_named_with_the_remedy(source, cache, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UserError, match=r"models can't be locked \(No locks available\): set UGRIE_CACHE to a folder on a local disk"):
        download(source, {})


def test_those_taken_last_are_kept(source, monkeypatch):
    monkeypatch.setattr(download_cache, "KEPT", 2)
    first, second = download({"a": source["a"]}, {}), download({"b": source["b"]}, {})
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    assert download({"a": source["a"]}, {}) == first
    third = download(source, {})
    assert {path for path in third.parent.iterdir() if path.is_dir()} == {first, third}


def test_other_files_in_a_folder_that_the_user_named_stay(source, cache, monkeypatch):
    monkeypatch.setattr(download_cache, "KEPT", 1)
    cache.mkdir(mode=0o700, parents=True)
    for name in (".ssh", "my-model"):
        (cache / name).mkdir()
    for name in source:
        download({name: source[name]}, {})
    assert {path.name for path in cache.iterdir() if not download_cache.ENTRY.fullmatch(path.name)} == {".ssh", "my-model", "lock"}


def test_a_cache_that_is_not_safe_is_the_users_error(source, cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(UserError, match=rf"models can't be cached in {cache}: other users may enter it; remove it, or set UGRIE_CACHE"):
        download(source, {})


# --- what fails


def test_a_file_that_is_not_there_is_named_and_nothing_is_left(source, cache):
    with pytest.raises(UserError, match=r"source/a\.gone can't be fetched: .*; check the address and the credentials"):
        download(source | {"b": f"{source['a']}.gone"}, {})
    assert list(cache.glob("*-*")) == []


def test_a_file_that_changes_meanwhile_is_no_entry(source, gets, cache, monkeypatch):
    get_file = LocalFileSystem.get_file

    def changing(self, path, target):
        get_file(self, path, target)
        Path(path).write_bytes(b"another")

    monkeypatch.setattr(LocalFileSystem, "get_file", changing)
    with pytest.raises(UserError, match="source/a changed while it was fetched: try again"):
        download(source, {})
    assert [path.name for path in cache.iterdir()] == ["lock"]


def test_an_address_shows_no_secrets(monkeypatch, source):
    with pytest.raises(UserError) as refused:
        download({"a": "ftp://user:hunter2@127.0.0.1:1/a"}, {})
    assert "hunter2" not in str(refused.value)
