"""Local cache of files from URLs: downloaded once for all processes of a user, and verified each time they are used.

The cache is the folder `models` of `ugrie.cache`. An entry's name holds a key of its files and their versions, and the SHA-256 of their
contents: a damaged entry no longer fits its name, and is downloaded again.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec.asyn
from filelock import FileLock

from pipeline.errors import UserError
from pipeline.storage.client import with_retries
from pipeline.storage.files import list_with_retries
from pipeline.storage.filesystem import Options, connect, version_of
from pipeline.storage.retry import Policy, ShortError
from pipeline.storage.uris import public_message, without_secrets
from ugrie.cache import VARIABLE, CacheError, cache_folder

KEPT = 4  # entries, those used last
ENTRY = re.compile(r"[0-9a-f]{16}-[0-9a-f]{64}")  # key-digest; besides entries only drafts are removed
DRAFT = ".downloading-"
COMMIT = re.compile(r"hf://[^/@]+/[^/@]+@([0-9a-f]{40})/")


def download(files: Mapping[str, str], options: Options) -> Path:
    """Return a local folder that holds the files, given as URLs by name. It is shared with other processes: change nothing in it.

    One of several concurrent processes downloads, and the others wait for it. Raises UserError if a file can't be
    downloaded, or if the cache is not safe.
    """
    try:
        folder = cache_folder("models")
    except CacheError as error:
        raise UserError(str(error)) from None
    key = _key(files, options)
    entry = _find(folder, key, files)
    if entry is None:
        with _locked(folder):
            entry = _find(folder, key, files) or _download(folder, key, files, options)
    return entry


def version(url: str, options: Options) -> str:
    """Return the version of a file, which changes when the file does. Raises UserError if there is no such file.

    A commit of a repository is a version itself: no request is made for it.
    """
    if (commit := COMMIT.match(url)) is not None:
        return commit[1]
    with _user_errors(url, options):
        fs, path = connect(url, options)
        found = version_of(list_with_retries(fs, path, lambda: fs.info(path)))
        return fs.ukey(path) if found.startswith("-") else found  # only a size, no time: fsspec may know more


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the cache's lock. The system releases it when the process ends, however it ends."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire()
    except OSError as error:  # as on a network disk without locks
        raise UserError(f"{folder} can't be locked ({error.strerror or error}): set {VARIABLE} to a folder on a local disk") from None
    try:
        yield
    finally:
        lock.release()


def _key(files: Mapping[str, str], options: Options) -> str:
    """Return the key of files by their names, their URLs without secrets, and their versions."""
    lines = [f"{name}\n{without_secrets(url)}\n{version(url, options)}\n" for name, url in files.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _find(folder: Path, key: str, files: Mapping[str, str]) -> Path | None:
    """Return the entry with a key, marked as used now, or None if there is none whose contents match its digest."""
    for entry in folder.glob(f"{key}-*"):
        with suppress(OSError):  # it lacks a file, or another process has just removed it
            if entry.name == f"{key}-{_digest(entry, files)}":
                os.utime(entry)
                return entry
    return None


def _digest(folder: Path, files: Mapping[str, str]) -> str:
    state = hashlib.sha256()
    for name in files:
        with open(folder / name, "rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    return state.hexdigest()


def _download(folder: Path, key: str, files: Mapping[str, str], options: Options) -> Path:
    """Download an entry, and remove all but the newest. The caller holds the lock, so any draft is one of a dead process."""
    for stale in [*folder.glob(f"{DRAFT}*"), *folder.glob(f"{key}-*")]:
        shutil.rmtree(stale, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=folder))
    try:
        for name, url in files.items():
            _download_file(url, options, draft / name)
        if _key(files, options) != key:
            raise UserError(f"{without_secrets(next(iter(files.values())))} changed while it was fetched: try again")
        entry = folder / f"{key}-{_digest(draft, files)}"
        draft.rename(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    entries = [each for each in folder.iterdir() if ENTRY.fullmatch(each.name)]
    for old in sorted(entries, key=lambda each: each.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return entry


def _download_file(url: str, options: Options, target: Path) -> None:
    with _user_errors(url, options):
        fs, path = connect(url, options)
        size = list_with_retries(fs, path, lambda: fs.info(path)).get("size") or 0

        def attempt(seconds: float) -> None:
            if fs.async_impl:
                fsspec.asyn.sync(fs.loop, fs._get_file, path, str(target), timeout=seconds)
            else:
                fs.get_file(path, str(target))
            if (length := target.stat().st_size) < size:
                raise ShortError(f"{length} bytes came of {size}")

        with_retries(fs, path, Policy(seconds=240 + size / 1e6), attempt)


@contextmanager
def _user_errors(url: str, options: Options) -> Iterator[None]:
    """Turn any error into a UserError that names the file: storage clients raise errors of their own."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = public_message(error, options)
        raise UserError(f"{without_secrets(url)} can't be fetched: {reason}; check the address and the credentials") from None
