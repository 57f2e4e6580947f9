"""The cache's folders: where they are, and that they are the user's alone."""

import errno
import os
import stat
import tempfile
from pathlib import Path

import platformdirs
import pytest

from ugrie.cache import CacheError, cache_folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of an empty cache that the user named."""
    monkeypatch.setenv("UGRIE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


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
    return home.parent / "temporary" / f"ugrie-{os.getuid()}-models"


def test_the_cache_is_the_users_own(home):
    folder = cache_folder("models")
    assert folder.is_relative_to(home)
    assert (folder.parts[-2:], stat.S_IMODE(folder.stat().st_mode)) == (("ugrie", "models"), 0o700)


def test_others_may_enter_the_folder_that_the_cache_lies_in(home):
    folder = platformdirs.user_cache_path("ugrie")
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert cache_folder("models") == folder / "models"


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
def test_without_a_home_that_can_be_written_the_cache_is_in_the_temporary_folder(home, temporary, monkeypatch, break_home):
    break_home(home, monkeypatch)
    assert cache_folder("models") == temporary
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o700


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
def test_a_folder_that_others_may_have_made_is_refused(home, temporary, monkeypatch, make, problem):
    home_is_not_there(home, monkeypatch)
    make(temporary, home / "elsewhere")
    with pytest.raises(CacheError, match=rf"ugrie-\d+-models: {problem}; remove it, or set UGRIE_CACHE to another folder"):
        cache_folder("models")


@UNSAFE
def test_a_named_folder_that_is_not_safe_is_refused_and_no_other_is_taken(cache, tmp_path, make, problem):
    make(cache, tmp_path / "elsewhere")
    with pytest.raises(CacheError, match=rf"models can't be cached in {cache}: {problem}; remove it, or set UGRIE_CACHE to another folder"):
        cache_folder("models")


def test_a_folder_of_another_user_is_refused(cache, monkeypatch):
    cache.mkdir(mode=0o700, parents=True)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(CacheError, match="it belongs to another user"):
        cache_folder("models")


def test_a_named_folder_that_can_not_be_made_is_refused(monkeypatch):
    monkeypatch.setenv("UGRIE_CACHE", "/dev/null/cache")
    with pytest.raises(CacheError, match=r"/dev/null/cache/models: it can't be created \(Not a directory\)"):
        cache_folder("models")
