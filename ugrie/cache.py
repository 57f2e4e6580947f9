"""UGRIE's cache on this machine: folders that only the user may enter.

They lie in UGRIE_CACHE. If that is not set, they lie in the user's cache folder (~/.cache/ugrie on Linux), or, where that can't be
written, in the temporary folder as ugrie-<uid>-<name>.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import platformdirs

from ugrie.errors import GivenError

VARIABLE = "UGRIE_CACHE"


class CacheError(GivenError):
    """No folder can be used safely. The message names the last one, the problem and the remedy."""


def cache_folder(name: str) -> Path:
    """Return a folder of the cache, created if necessary. Raises CacheError if none can be used safely."""
    for folder in _candidates(name):
        if (problem := _prepare(folder)) is None:
            return folder
    raise CacheError(f"{name} can't be cached in {folder}: {problem}; remove it, or set {VARIABLE} to another folder")


def _candidates(name: str) -> Iterator[Path]:
    if variable := os.environ.get(VARIABLE):
        yield Path(os.path.abspath(os.path.expanduser(variable))) / name
        return
    with suppress(RuntimeError):  # the user has no home folder
        yield platformdirs.user_cache_path("ugrie") / name
    yield Path(tempfile.gettempdir()) / f"ugrie-{os.getuid()}-{name}"  # one level: its parent is anybody's


def _prepare(folder: Path) -> str | None:
    """Create a folder that only this user may enter, and return why it can't be used, or None."""
    if not folder.is_absolute():  # "~/.cache" of a user who has no home folder
        return "it is not an absolute path"
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        found = folder.lstat()
    except OSError as error:
        return f"it can't be created ({error.strerror})"
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a folder"
    if found.st_uid != os.getuid():
        return "it belongs to another user"
    if found.st_mode & 0o077:
        return "other users may enter it"
    return None if os.access(folder, os.W_OK | os.X_OK) else "it is read-only"
