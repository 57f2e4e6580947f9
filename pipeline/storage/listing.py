"""List the files below a folder in path order. Many folders are listed at once, and files are yielded soon after they are listed.

S3 is listed page by page, one request a page. Near the top each folder is listed by itself. Once enough folders are found to
list in parallel, the rest is listed as flat prefixes, so that there are few more requests than pages. Other storage is listed
folder by folder.
"""

import datetime as dt
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple

import fsspec
import fsspec.asyn
from botocore.exceptions import ClientError
from botocore.utils import parse_timestamp
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from pipeline.storage.client import with_retries
from pipeline.storage.files import list_with_retries
from pipeline.storage.filesystem import version_of
from pipeline.storage.retry import Policy

THREADS = 32
MOST_HELD = 500_000  # files listed but not yet yielded: some 200 bytes each
SMALL = 1000  # files: a shorter list is merged with the next one, since looking ahead takes longer the more lists there are
PAGE = Policy(seconds=600, attempts=6)
HIDDEN = re.compile(r"/[._]")  # ._name, _name


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
class _Folder:
    """A folder to list, or with `token` the rest of it.

    `levels` is how many levels of folders to descend; None: all. `threads` is the folder's share of THREADS, which folders found
    together split evenly. In S3 a folder with less than one thread is listed as a flat prefix, unless `levels` is limited.
    """

    path: str
    levels: int | None
    threads: float = THREADS
    token: str | None = None


_Part = list[File] | _Folder
_Listing = Future[list[_Part]]  # of one folder: its files and subfolders, in order
_Entry = tuple[str, File | None]  # a path and its file; a folder's path ends with / and has None


def files_below(fs: fsspec.AbstractFileSystem, folder: str, levels: int | None = None) -> Iterator[File]:
    """Yield all files below a folder, except hidden files, those in hidden folders, and those in folders reached by links.

    Raises FileNotFoundError if the folder does not exist, and the storage's own errors. The number of concurrent listings and
    of files held in memory is bounded.
    """
    root_length = len(folder.rstrip("/"))
    ahead: deque[_Part | _Listing] = deque([_Folder(folder.rstrip("/") or folder, levels)])  # the next first
    pool = ThreadPoolExecutor(THREADS)
    try:
        while ahead:
            running = _look_ahead(ahead, lambda each: pool.submit(_list_folder, fs, each, root_length))
            if ahead and isinstance(files := ahead[0], list):
                ahead.popleft()
                yield from files
            else:
                wait(running, return_when=FIRST_COMPLETED)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _look_ahead(ahead: deque[_Part | _Listing], start: Callable[[_Folder], _Listing]) -> list[_Listing]:
    """Start to list the next folders of `ahead`, and replace finished listings by what they found, within the bounds.

    Returns the listings that are still running. Raises the error of a failed listing once it is the first of `ahead`.
    """
    passed: list[_Part | _Listing] = []
    running: list[_Listing] = []
    held = 0
    while ahead and len(running) < THREADS and held < MOST_HELD:
        part = ahead.popleft()
        if isinstance(part, _Folder):
            part = start(part)
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


def _list_folder(fs: fsspec.AbstractFileSystem, folder: _Folder, root_length: int) -> list[_Part]:
    """List a folder, in S3 its next page. Returns its files, its subfolders and the rest of it, in order, without hidden ones.

    `root_length` is the length of the path at which the whole listing started: what is hidden is decided below it.
    """
    if isinstance(fs, S3FileSystem):
        entries, token = _list_page(fs, folder)
    else:
        entries, token = _list_entries(fs, folder, root_length), None
    threads = folder.threads / max(sum(file is None for _, file in entries), 1)
    levels = None if folder.levels is None else folder.levels - 1
    parts: list[_Part] = []
    for path, file in sorted(entries, key=itemgetter(0)):
        if HIDDEN.search(path, root_length):
            continue
        if file is None:
            parts += [_Folder(path[:-1], levels, threads)] if folder.levels != 0 else []
        elif parts and isinstance(parts[-1], list):
            parts[-1].append(file)
        else:
            parts.append([file])
    return [*parts, replace(folder, token=token)] if token else parts


def _list_page(fs: S3FileSystem, folder: _Folder) -> tuple[list[_Entry], str | None]:
    """Return the entries of one page of S3's listing of a folder, and the token of the next page."""
    bucket = fs.split_path(folder.path)[0]
    prefix = f"{folder.path[len(bucket) + 1 :]}/" if len(folder.path) > len(bucket) else ""
    request = {"Bucket": bucket, "Prefix": prefix}
    request |= {"Delimiter": "/"} if folder.threads >= 1 or folder.levels is not None else {}
    request |= {"ContinuationToken": folder.token} if folder.token else {}
    page = with_retries(fs, folder.path, PAGE, lambda seconds: fsspec.asyn.sync(fs.loop, _list_objects, fs, request, timeout=seconds))
    entries: list[_Entry] = [(f"{bucket}/{each['Prefix']}", None) for each in page.get("CommonPrefixes", ())]
    for each in page.get("Contents", ()):
        if each["Size"] or not each["Key"].endswith("/"):  # an empty object with such a key marks a folder, as consoles create them
            path = f"{bucket}/{each['Key']}"
            entries.append((path, File(path, each["Size"], version_of(each | {"size": each["Size"]}))))
    return entries, page["NextContinuationToken"] if page.get("IsTruncated") else None


async def _list_objects(fs: S3FileSystem, request: dict[str, str]) -> dict[str, Any]:
    await fs.set_session()
    # Botocore's own parser of dates takes four fifths of the time of reading a page.
    fs.session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_timestamp)
    client = await fs.get_s3(request["Bucket"])
    try:
        return await client.list_objects_v2(**fs._get_s3_method_kwargs(client.list_objects_v2, request))
    except ClientError as error:
        raise translate_boto_error(error) from error


def _parse_timestamp(value: Any) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):  # a date in a header has another format
        return parse_timestamp(value)


def _list_entries(fs: fsspec.AbstractFileSystem, folder: _Folder, root_length: int) -> list[_Entry]:
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
        elif info.get("islink") and not fs.isdir(path):  # a broken link is an image that is missing
            entries.append((path, file_of(info if fs.exists(path) else info | {"size": None})))
    return entries
