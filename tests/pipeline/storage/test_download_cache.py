"""The local cache of files from URLs."""

import errno
import os
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
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


# --- which folder


@pytest.fixture
def home(tmp_path, cache, monkeypatch):
    """A user with a home and a temporary folder, who names no cache."""
    for name in ("home", "temporary"):
        (tmp_path / name).mkdir()
    for name in ("UGRIE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "home"


@pytest.fixture
def temporary(home):
    """The cache of a user whose home folder can't be written."""
    return home.parent / "temporary" / f"ugrie-{os.getuid()}"


def test_the_cache_is_the_users_own(source, home):
    folder = download(source, {}).parent
    assert folder.is_relative_to(home)
    assert (folder.parts[-2:], stat.S_IMODE(folder.stat().st_mode)) == (("ugrie", "models"), 0o700)


def test_others_may_enter_the_folder_that_the_cache_lies_in(source, home):
    folder = platformdirs.user_cache_path("ugrie")
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert download(source, {}).parent == folder / "models"


def no_home(home, monkeypatch):
    """A user whom the system does not know, as in containers."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])


def home_is_not_there(home, monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null")


def home_is_read_only(home, monkeypatch):
    mkdir = os.mkdir

    def refuse(path, *arguments, **settings):
        if Path(path).is_relative_to(home):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        mkdir(path, *arguments, **settings)

    monkeypatch.setattr(os, "mkdir", refuse)


def cache_is_read_only(home, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, *arguments: not Path(path).is_relative_to(home) and access(path, *arguments))


def others_may_enter_the_cache(home, monkeypatch):
    folder = platformdirs.user_cache_path("ugrie") / "models"
    folder.mkdir(parents=True)
    folder.chmod(0o777)


@pytest.mark.parametrize(
    "break_home",
    [no_home, home_is_not_there, home_is_read_only, cache_is_read_only, others_may_enter_the_cache],
    ids=lambda each: each.__name__,
)
def test_without_a_home_that_can_be_written_the_cache_is_in_the_temporary_folder(source, home, temporary, monkeypatch, break_home):
    break_home(home, monkeypatch)
    folder = download(source, {})
    assert folder.parent == temporary
    assert (content(folder), stat.S_IMODE(temporary.stat().st_mode)) == (WHOLE, 0o700)


def writable(folder, elsewhere):
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def a_link(folder, elsewhere):
    elsewhere.mkdir(mode=0o700)
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(elsewhere)


def a_file(folder, elsewhere):
    folder.parent.mkdir(exist_ok=True)
    folder.touch(mode=0o600)


UNSAFE = pytest.mark.parametrize(
    ("make", "problem"),
    [(writable, "other users may enter it"), (a_link, "it is not a folder"), (a_file, "it is not a folder")],
    ids=["writable", "a_link", "a_file"],
)


@UNSAFE
def test_a_folder_that_others_may_have_made_is_refused(source, home, temporary, monkeypatch, make, problem):
    home_is_not_there(home, monkeypatch)
    make(temporary, home / "elsewhere")
    with pytest.raises(UserError, match=rf"ugrie-\d+: {problem}; remove it, or set UGRIE_CACHE to another folder"):
        download(source, {})


@UNSAFE
def test_a_named_folder_that_is_not_safe_is_refused_and_no_other_is_taken(source, cache, tmp_path, make, problem):
    make(cache, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"models can't be kept in {cache}: {problem}; remove it, or set UGRIE_CACHE to another folder"):
        download(source, {})


def test_a_folder_of_another_user_is_refused(source, cache, monkeypatch):
    cache.mkdir(mode=0o700, parents=True)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(UserError, match="it belongs to another user"):
        download(source, {})


def test_a_named_folder_that_can_not_be_made_is_refused(source, monkeypatch):
    monkeypatch.setenv("UGRIE_CACHE", "/dev/null/cache")
    with pytest.raises(UserError, match=r"/dev/null/cache/models: it can't be created \(Not a directory\)"):
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
