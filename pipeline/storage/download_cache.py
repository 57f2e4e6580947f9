"""Files from URLs, kept on this machine: fetched once for all processes of a user, and looked at whenever one takes them.

They lie below the folder for temporary files (TMPDIR) in a folder that is the user's alone. An entry's name says which files, of which
versions, and the SHA-256 of what it holds: what was damaged no longer fits its name, and is fetched again.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec.asyn

from pipeline.errors import UserError
from pipeline.storage.client import ask
from pipeline.storage.files import listed
from pipeline.storage.filesystem import Options, connect, version_of
from pipeline.storage.retry import Policy, ShortError
from pipeline.storage.uris import without_secrets
from ugrie.text import one_line

KEPT = 4  # entries: those that were taken last


def fetched(files: Mapping[str, str], options: Options) -> Path:
    """The folder on this machine that holds the files: the URL of each by its name there. Others may read it, too; change nothing in it.

    Of several processes that ask at once one fetches, and the others wait for it. Raises UserError where a file can't be had, or
    where the machine's folder for them is not safe.
    """
    folder, key = _own_folder(), _key(files, options)
    entry = _whole(folder, key, files)
    if entry is None:
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # which ends with the process, whatever ends that
            entry = _whole(folder, key, files) or _fetch(folder, key, files, options)
    return entry


def version(url: str, options: Options) -> str:
    """What changes when the file does. Raises UserError where there is none."""
    with _named(url):
        fs, path = connect(url, options)
        found = version_of(listed(fs, path, lambda: fs.info(path)))
        return fs.ukey(path) if found.startswith("-") else found  # no time, only a size: fsspec may know of something else


def _own_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"ugrie-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UserError(f"models are kept in {folder}, which is not this user's alone: remove it, or set TMPDIR to another folder")
    return folder


def _key(files: Mapping[str, str], options: Options) -> str:
    stated = [f"{name}\n{without_secrets(url)}\n{version(url, options)}\n" for name, url in files.items()]
    return hashlib.sha256("".join(stated).encode()).hexdigest()[:16]


def _whole(folder: Path, key: str, files: Mapping[str, str]) -> Path | None:
    """The entry that has this key, if it holds what it was made of."""
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


def _fetch(folder: Path, key: str, files: Mapping[str, str], options: Options) -> Path:
    """Whoever calls it has the lock: drafts that lie there are those of processes that died."""
    for left in [*folder.glob(".*"), *folder.glob(f"{key}-*")]:
        shutil.rmtree(left, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=".", dir=folder))
    try:
        for name, url in files.items():
            _get(url, options, draft / name)
        if _key(files, options) != key:
            raise UserError(f"{without_secrets(next(iter(files.values())))} changed while it was fetched: try again")
        entry = folder / f"{key}-{_digest(draft, files)}"
        draft.rename(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    entries = sorted(folder.glob("*-*"), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in entries[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return entry


def _get(url: str, options: Options, target: Path) -> None:
    with _named(url):
        fs, path = connect(url, options)
        size = listed(fs, path, lambda: fs.info(path)).get("size") or 0

        def attempt(seconds: float) -> None:
            if fs.async_impl:
                fsspec.asyn.sync(fs.loop, fs._get_file, path, str(target), timeout=seconds)
            else:
                fs.get_file(path, str(target))
            if (came := target.stat().st_size) < size:
                raise ShortError(f"{came} bytes came of {size}")

        ask(fs, path, Policy(seconds=240 + size / 1e6), attempt)


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Whatever fails is a UserError that names the file: storage clients raise kinds of their own."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        what = one_line(str(error)) or type(error).__name__
        raise UserError(f"{without_secrets(url)} can't be fetched: {what}; check the address and the credentials") from None
