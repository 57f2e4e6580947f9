"""List the files below a folder in path order. Many folders are listed at once, and files are yielded soon after they are listed.

S3 is listed page by page, one request a page. Near the top each folder is listed by itself. Once enough folders are found to
list in parallel, the rest is listed as flat prefixes, so that there are few more requests than pages. What is left of a long
folder is divided into ranges of keys while there are too few folders to list at once. Other storage is listed folder by folder.
"""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple

import fsspec
import fsspec.asyn
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import StorageError
from pipeline.storage.client import with_retries
from pipeline.storage.files import list_with_retries
from pipeline.storage.filesystem import version_of
from pipeline.storage.left_out import LOOP, MARKER, OUTPUT, SPECIAL, LeftOut, marker
from pipeline.storage.libraries import is_s3
from pipeline.storage.retry import Policy
from pipeline.storage.s3_page import LAST, letters_of, list_objects, middle, same_start

THREADS = 32
MOST_HELD = 500_000  # files listed but not yet yielded: some 200 bytes each
SMALL = 1000  # files: a shorter list is merged with the next one, since looking ahead takes longer the more lists there are
DIVIDED_PAGES = 16  # of a folder that are listed one after another before the rest is divided, which takes some two requests
DIVIDE_TRIES = 4
PAGE = Policy(seconds=600, attempts=6)


class File(NamedTuple):
    """A file: its path in its file system, its size if known, and its version."""

    name: str
    size: int | None
    version: str

    @property
    def info(self) -> dict[str, Any]:
        """The file as an entry of a listing, as `open_file` takes it."""
        return {"name": self.name, "size": self.size, "ETag": self.version}


def file_of(info: dict[str, Any]) -> File:
    """Return an entry of a listing as a file."""
    return File(info["name"], info.get("size"), version_of(info))


@dataclass(frozen=True)
class Folder:
    """A folder to list, or with `token` the rest of it.

    `levels` is how many levels of folders to descend; None: all. `threads` is the folder's share of THREADS, which folders found
    together split evenly. In S3 a folder with less than one thread is listed as a flat prefix, unless `levels` is limited.
    A local folder has its `real` path, and those of the folders whose links lead to it.

    In S3 a folder may be a range of another: paths after `after` up to `until`. What is left of one has the first and the last path that
    were listed, the `letters` of its names, and how many `pages` were listed since it was last divided. With `divide` it is to be
    divided. A folder at the `edge` of a range may be found in the next one as well: storage that sorts folders by their names without a
    slash has it on the other side.
    """

    path: str
    levels: int | None
    threads: float = THREADS
    token: str | None = None
    real: str = ""
    links: tuple[str, ...] = ()
    after: str = ""
    until: str = ""
    first: str = ""
    last: str = ""
    letters: str = ""
    pages: int = 0
    divide: bool = False
    edge: bool = False

    @classmethod
    def at(cls, fs: fsspec.AbstractFileSystem, path: str, levels: int | None = None) -> "Folder":
        """Return the folder at a path; `levels` is how many levels of folders to descend."""
        root = path.rstrip("/") or path
        return cls(root, levels, real=os.path.realpath(root) if isinstance(fs, LocalFileSystem) else "")


Found = list[File | LeftOut]
_Part = Found | Folder
_Listing = Future[list[_Part]]  # of one folder: its files and subfolders, in order
_Entry = tuple[str, File | str | None]  # a path and its file; a folder's path ends with / and has None, or where its link leads


class Walk:
    """A listing of folders that follow each other, in order. It can be stopped, and gone on with in another process.

    Nothing in the folders `skip` is listed; local ones are given by their real paths. `hidden_from` is the length of the path below which
    hidden files and markers are left out. The number of concurrent listings and of files held in memory is bounded.
    """

    def __init__(self, fs: fsspec.AbstractFileSystem, folders: Iterable[Folder], hidden_from: int, skip: tuple[str, ...] = ()):
        self._fs, self._hidden_from, self._skip = fs, hidden_from, skip
        self._ahead: deque[_Part | _Listing] = deque(folders)  # the next first
        self._edges: set[str] = set()
        self._pool = ThreadPoolExecutor(THREADS)

    def __iter__(self) -> Iterator[Found]:
        """Yield what is found, some of it at once. Raises FileNotFoundError if the first folder is none, and the storage's errors."""
        try:
            while self._ahead:
                running = _look_ahead(self._ahead, self._start)
                if self._ahead and isinstance(self._ahead[0], list):
                    found = self._ahead.popleft()
                    assert isinstance(found, list)
                    yield found
                else:
                    wait(running, return_when=FIRST_COMPLETED)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def rest(self) -> list[Found | Folder]:
        """Wait for what is being listed, and start no more. Return what is left, in order: what was found, and folders to list."""
        left: list[Found | Folder] = []
        for part in self._ahead:
            left += part.result() if isinstance(part, Future) else [part]
        self._ahead.clear()
        return left

    def _start(self, folder: Folder) -> _Listing:
        if folder.edge:
            if folder.path in self._edges:
                return self._pool.submit(list)
            self._edges.add(folder.path)
            folder = replace(folder, edge=False)
        return self._pool.submit(_divide if folder.divide else _list_folder, self._fs, folder, self._hidden_from, self._skip)


def files_below(
    fs: fsspec.AbstractFileSystem,
    folder: str,
    levels: int | None = None,
    leave_out: Callable[[LeftOut], None] = lambda left_out: None,
    skip: tuple[str, ...] = (),
) -> Iterator[File]:
    """Yield all files below a folder, also through links to folders, but no hidden files and markers (`left_out.py`).

    Nothing in the folders `skip` is listed, as of `Walk`. Calls `leave_out` for all that is left out, once for a folder. Raises
    FileNotFoundError if the folder does not exist, and the storage's own errors.
    """
    last = ""
    for found in Walk(fs, [Folder.at(fs, folder, levels)], len(folder.rstrip("/")), skip):
        for file in found:
            if isinstance(file, File):
                yield file
            elif file.path != last:  # a folder that is listed as a flat prefix comes once for each of its files
                last = file.path
                leave_out(file)


def _look_ahead(ahead: deque[_Part | _Listing], start: Callable[[Folder], _Listing]) -> list[_Listing]:
    """Start to list the next folders of `ahead`, and replace finished listings by what they found, within the bounds.

    Returns the listings that are still running. Raises the error of a failed listing once it is the first of `ahead`.
    """
    passed: list[_Part | _Listing] = []
    running: list[_Listing] = []
    held = 0
    busy = _listable(ahead)
    while ahead and len(running) < THREADS and held < MOST_HELD:
        part = ahead.popleft()
        if isinstance(part, Folder):
            part = start(replace(part, divide=busy < THREADS and part.pages >= DIVIDED_PAGES))
        if isinstance(part, list):
            held += len(part)
            if passed and isinstance(previous := passed[-1], list) and len(previous) < SMALL:
                previous += part
            else:
                passed.append(part)
        elif not part.done():
            running.append(part)
            passed.append(part)
        elif part.exception() is None or not passed:
            ahead.extendleft(reversed(part.result()))
        else:  # it failed: nothing after it will be yielded
            passed.append(part)
            break
    ahead.extendleft(reversed(passed))
    return running


def _listable(ahead: deque[_Part | _Listing]) -> int:
    """Return how many folders there are to list, or being listed, before as many files are held as may be."""
    count = held = 0
    for part in ahead:
        if held >= MOST_HELD:
            break
        held += len(part) if isinstance(part, list) else 0
        count += not isinstance(part, list)
    return count


def _list_folder(fs: fsspec.AbstractFileSystem, folder: Folder, root_length: int, skip: tuple[str, ...]) -> list[_Part]:
    """List a folder, in S3 its next page. Returns its files, its subfolders and the rest of it, in order.

    `root_length` is the length of the path at which the whole listing started: what is hidden is decided below it.
    """
    rest: Folder | None = None
    if is_s3(fs):
        entries, token = _list_page(fs, folder)
        rest = _rest(fs, folder, entries, token)
        entries = [entry for entry in entries if any(_sides(folder, entry[0]))]
    else:
        entries = _list_entries(fs, folder, root_length)
    threads = folder.threads / max(sum(not isinstance(file, File) for _, file in entries), 1)
    parts: list[_Part] = []
    for path, file in sorted(entries, key=itemgetter(0)):
        part = _left_out(folder, path, file, root_length, skip) or (
            file if isinstance(file, File) else _subfolder(folder, path, file, threads)
        )
        if isinstance(part, Folder):
            inside = _sides(folder, path)
            parts += [replace(part, edge=inside[0] != inside[1])] if folder.levels != 0 else []
        elif parts and isinstance(parts[-1], list):
            parts[-1].append(part)
        else:
            parts.append([part])
    return [*parts, rest] if rest else parts


def _sides(folder: Folder, path: str) -> tuple[bool, bool]:
    """Return whether a path is within a folder's range: as S3 sorts it, and as storage does that sorts folders without their slash."""
    first, second = (folder.after < each and (not folder.until or each <= folder.until) for each in (path, path.rstrip("/")))
    return first, second


def _rest(fs: fsspec.AbstractFileSystem, folder: Folder, entries: list[_Entry], token: str | None) -> Folder | None:
    """Return what is left of a folder of S3 after a page of it, or None."""
    if token is None or not entries:
        return replace(folder, token=token) if token else None
    if folder.until and any(path.rstrip("/") > folder.until for path, _ in entries):
        return None
    files = [path for path, file in entries if isinstance(file, File)]
    names = [path[len(folder.path) + 1 :] for path in files]
    # Directory buckets are in no order. In a flat prefix no range of names ends at a file in a subfolder.
    ordered = files == sorted(files) and not folder.path.partition("/")[0].endswith("--x-s3")
    divisible = ordered and bool(names) and (_by_folders(folder) or "/" not in names[-1])
    if not ordered and (folder.after or folder.until):
        raise StorageError(f"{folder.path} is not listed in the order of its keys, and can't be read: list its files in a table instead")
    return replace(
        folder,
        token=token,
        first=folder.first or min(path for path, _ in entries),
        last=max(path for path, _ in entries),
        letters=letters_of(names),
        pages=folder.pages + 1 if divisible else min(folder.pages + 1, DIVIDED_PAGES - 1),
    )


def _divide(fs: fsspec.AbstractFileSystem, folder: Folder, root_length: int, skip: tuple[str, ...]) -> list[_Part]:
    """Divide what is left of a folder of S3 into two ranges of names, the second of which begins with what a page has found of it."""
    if not _by_folders(folder):
        folder = replace(folder, threads=1, token=None, after=folder.last)
    base = f"{folder.path}/"
    high = folder.until or _end(fs, folder)
    for _ in range(DIVIDE_TRIES):
        at = base + middle(folder.last[len(base) :], high[len(base) :], folder.letters)
        if not folder.last < at < high:
            break
        second = _list_folder(fs, replace(folder, token=None, after=at, first="", last="", pages=0, divide=False), root_length, skip)
        if second:
            return [replace(folder, until=at, pages=0, divide=False), *second]
        high = at
    return [replace(folder, until=high if high < f"{base}{chr(0x10FFFF)}" else "", pages=-DIVIDE_TRIES * DIVIDED_PAGES, divide=False)]


def _end(fs: fsspec.AbstractFileSystem, folder: Folder) -> str:
    """Return a path that no file below a folder of S3 is after: with the longest prefix of those listed so far that all have."""

    def is_end(length: int) -> bool:
        entries, token = _list_page(fs, replace(folder, token=None, after=f"{folder.last[:length]}{LAST}"), keys=1)
        return not entries and token is None

    low, high = len(folder.path) + 1, same_start(folder.first, folder.last)
    if not is_end(low):
        return f"{folder.path}/{chr(0x10FFFF)}"
    while low < high:
        length = (low + high + 1) // 2
        low, high = (length, high) if is_end(length) else (low, length - 1)
    return f"{folder.last[:low]}{LAST}"


def _by_folders(folder: Folder) -> bool:
    """Return whether a folder of S3 is listed without what is in its subfolders, rather than as a flat prefix."""
    return folder.threads >= 1 or folder.levels is not None


def _left_out(folder: Folder, path: str, file: File | str | None, root_length: int, skip: tuple[str, ...]) -> LeftOut | None:
    """Return what is left out with an entry of a folder: the entry itself, or a folder that it is in; None if it is listed."""
    if skip:
        place = _real(folder, path) if folder.real else path
        for own in skip:
            if f"{file if isinstance(file, str) else place}/".startswith(f"{own}/"):
                return LeftOut(own, OUTPUT)
    if (found := marker(path, root_length)) is not None:
        return LeftOut(found, MARKER)
    if isinstance(file, File):
        return LeftOut(path, SPECIAL) if file.version == SPECIAL else None
    if isinstance(file, str) and any(f"{place}/".startswith(f"{file.rstrip('/')}/") for place in (*folder.links, folder.real)):
        return LeftOut(path, LOOP)
    return None


def _subfolder(folder: Folder, path: str, target: str | None, threads: float) -> Folder:
    """Return the folder at a path within `folder`, or the one at `target` to which the link at `path` leads."""
    levels = None if folder.levels is None else folder.levels - 1
    if target is not None:
        return Folder(path[:-1], levels, threads, real=target, links=(*folder.links, folder.real))
    return Folder(path[:-1], levels, threads, real=folder.real and _real(folder, path[:-1]), links=folder.links)


def _real(folder: Folder, path: str) -> str:
    """Return the real path of an entry of a local folder that is no link."""
    return f"{folder.real.rstrip('/')}/{path[len(folder.path.rstrip('/')) + 1 :]}"


def _list_page(fs: fsspec.AbstractFileSystem, folder: Folder, keys: int | None = None) -> tuple[list[_Entry], str | None]:
    """Return the entries of one page of S3's listing of a folder, at most `keys`, and the token of the next page."""
    bucket = fs.split_path(folder.path)[0]
    prefix = f"{folder.path[len(bucket) + 1 :]}/" if len(folder.path) > len(bucket) else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    request |= {"Delimiter": "/"} if _by_folders(folder) else {}
    request |= {"StartAfter": folder.after[len(bucket) + 1 :]} if folder.after and not folder.token else {}
    request |= {"ContinuationToken": folder.token} if folder.token else {}
    request |= {"MaxKeys": keys} if keys else {}
    page = with_retries(fs, folder.path, PAGE, lambda seconds: fsspec.asyn.sync(fs.loop, list_objects, fs, request, timeout=seconds))
    entries: list[_Entry] = [(f"{bucket}/{each['Prefix']}", None) for each in page.get("CommonPrefixes", ())]
    for each in page.get("Contents", ()):
        if each["Size"] or not each["Key"].endswith("/"):  # an empty object with such a key marks a folder, as consoles create them
            path = f"{bucket}/{each['Key']}"
            entries.append((path, File(path, each["Size"], version_of(each | {"size": each["Size"]}))))
    return entries, page["NextContinuationToken"] if page.get("IsTruncated") else None


def _list_entries(fs: fsspec.AbstractFileSystem, folder: Folder, root_length: int) -> list[_Entry]:
    """Return the entries of a folder of any storage but S3. A subfolder that has just disappeared has none."""
    try:
        infos = list_with_retries(fs, folder.path, lambda: fs.ls(folder.path, detail=True))
    except FileNotFoundError:
        if len(folder.path) <= root_length:
            raise
        return []
    entries: list[_Entry] = []
    for info in infos:
        path = info["name"]
        if info["type"] == "directory":
            if path.rstrip("/") != folder.path:
                entries.append((f"{path.rstrip('/')}/", None))
        elif info["type"] == "file":
            entries.append((path, file_of(info)))
        elif info.get("islink"):
            entries.append(_follow(path, info))
        else:
            entries.append((path, File(path, None, SPECIAL)))
    return entries


def _follow(path: str, info: dict[str, Any]) -> _Entry:
    """Return the entry of a local link, with the size and version of what it leads to; without a size where that does not exist."""
    try:
        found = os.stat(path)
    except OSError:  # it leads nowhere, or round in a circle: an image that is missing
        return path, file_of(info | {"size": None})
    if stat.S_ISDIR(found.st_mode):
        return f"{path}/", os.path.realpath(path)
    return path, file_of(info | {"size": found.st_size, "mtime": found.st_mtime}) if stat.S_ISREG(found.st_mode) else File(
        path, None, SPECIAL
    )
