"""The files below a folder, in the order of their paths: many folders are listed at once, and what was listed is soon passed on.

S3 is listed page by page, every page a request of its own: folder by folder near the top, and without regard to folders where
there are enough to be listed at once, so that there are few more requests than pages. Other storage is listed folder by
folder.
"""

import datetime as dt
import re
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import fsspec
import fsspec.asyn
from botocore.exceptions import ClientError
from botocore.utils import parse_timestamp
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from pipeline.storage.client import ask
from pipeline.storage.files import listed
from pipeline.storage.filesystem import version_of
from pipeline.storage.retry import Policy

THREADS = 32
MOST_HELD = 500_000  # files that are listed and not yet passed on: some 200 bytes each
FEW = 1000  # files of several folders that are passed on together, since looking ahead takes longer the more parts there are
PAGE = Policy(seconds=600, attempts=6)
HIDDEN = re.compile(r"/[._]")  # ._name, _name


class File(NamedTuple):
    """A file by its file system's name for it, its size where it is known, and its version."""

    name: str
    size: int | None
    version: str

    @property
    def info(self) -> dict[str, Any]:
        """What `open_file` needs of a listing's entry."""
        return {"name": self.name, "size": self.size, "ETag": self.version}


@dataclass(frozen=True)
class _Folder:
    """A folder that is to be listed, or the rest of it.

    `levels` are the folders' that are to be gone down, None: all. `share` is its part of THREADS, by what it was found
    beside: a folder that has less than one thread to itself is listed without regard to folders.
    """

    path: str
    levels: int | None
    share: float = THREADS
    token: str | None = None


_Part = _Folder | list[File]  # what is in order, or to be


def files_below(fs: fsspec.AbstractFileSystem, folder: str, levels: int | None = None) -> Iterator[File]:
    """All files but hidden ones and those in hidden folders; without those in folders that are reached by links.

    Raises FileNotFoundError where there is no such folder, and what the storage raises. What is listed at once, and held, is bounded.
    """
    begun = len(folder.rstrip("/"))
    # What is still to come, the next at the end.
    ahead: list[_Part | Future[list[_Part]]] = [_Folder(folder.rstrip("/") or folder, levels)]
    pool = ThreadPoolExecutor(THREADS)
    try:
        while ahead:
            _look_ahead(ahead, lambda place: pool.submit(_list, fs, place, begun))
            if ahead and isinstance(part := ahead[-1], list):
                ahead.pop()
                yield from part
            else:
                wait([part for part in ahead if isinstance(part, Future) and not part.done()], return_when=FIRST_COMPLETED)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _look_ahead(ahead: list[_Part | Future[list[_Part]]], begin: Callable[[_Folder], Future[list[_Part]]]) -> None:
    """Begins to list what comes next, and puts what was listed where its folder stood, as long as that is not too much."""
    at_work = held = 0
    i = len(ahead) - 1
    while i >= 0 and at_work < THREADS and held < MOST_HELD:
        part = ahead[i]
        if isinstance(part, _Folder):
            part = ahead[i] = begin(part)
        if isinstance(part, list):
            held += len(part)
            if i + 1 < len(ahead) and isinstance(before := ahead[i + 1], list) and len(before) < FEW:
                before += part
                del ahead[i]
        elif part.done() and (part.exception() is None or i == len(ahead) - 1):  # one that failed does so when it is its turn
            found = part.result()
            ahead[i : i + 1] = reversed(found)
            i += len(found)
        else:
            at_work += 1
        i -= 1


def _list(fs: fsspec.AbstractFileSystem, place: _Folder, begun: int) -> list[_Part]:
    """What a folder, or the next page of it, holds, in order. `begun` is the length of the name of the folder it all began with."""
    if isinstance(fs, S3FileSystem):
        found, token = _page(fs, place)
    else:
        found, token = _entries(fs, place, begun), None
    deeper = place.levels is None or place.levels > 0
    levels = None if place.levels is None else place.levels - 1
    share = place.share / max(sum(file is None for _, file in found), 1)
    parts: list[_Part] = []
    for name, file in sorted(found, key=lambda entry: entry[0] if entry[1] else f"{entry[0]}/"):
        if HIDDEN.search(name, begun):
            continue
        if file is None:
            parts += [_Folder(name, levels, share)] if deeper else []
        elif parts and isinstance(parts[-1], list):
            parts[-1].append(file)
        else:
            parts.append([file])
    return [*parts, replace(place, token=token)] if token else parts


def _page(fs: S3FileSystem, place: _Folder) -> tuple[list[tuple[str, File | None]], str | None]:
    """Files, and folders as None, of one page of S3's, by name, and the token of the next page."""
    bucket = fs.split_path(place.path)[0]
    prefix = f"{place.path[len(bucket) + 1 :]}/" if len(place.path) > len(bucket) else ""
    asked = {"Bucket": bucket, "Prefix": prefix}
    asked |= {"Delimiter": "/"} if place.share >= 1 or place.levels is not None else {}
    asked |= {"ContinuationToken": place.token} if place.token else {}
    page = ask(fs, place.path, PAGE, lambda seconds: fsspec.asyn.sync(fs.loop, _objects, fs, asked, timeout=seconds))
    found: list[tuple[str, File | None]] = [(f"{bucket}/{each['Prefix'][:-1]}", None) for each in page.get("CommonPrefixes", ())]
    for each in page.get("Contents", ()):
        if each["Size"] or not each["Key"].endswith("/"):  # which marks a folder, as consoles make them
            name = f"{bucket}/{each['Key']}"
            found.append((name, File(name, each["Size"], version_of(each | {"size": each["Size"]}))))
    return found, page["NextContinuationToken"] if page.get("IsTruncated") else None


async def _objects(fs: S3FileSystem, asked: dict[str, str]) -> dict[str, Any]:
    await fs.set_session()
    # Botocore's own parser of dates takes four fifths of the time that reading a page takes.
    fs.session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    client = await fs.get_s3(asked["Bucket"])
    try:
        return await client.list_objects_v2(**fs._get_s3_method_kwargs(client.list_objects_v2, asked))
    except ClientError as error:
        raise translate_boto_error(error) from error


def _timestamp(value: Any) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):  # a header's
        return parse_timestamp(value)


def _entries(fs: fsspec.AbstractFileSystem, place: _Folder, begun: int) -> list[tuple[str, File | None]]:
    """Files, and folders as None, of a folder of another storage."""
    try:
        infos = listed(fs, place.path, lambda: fs.ls(place.path, detail=True))
    except FileNotFoundError:
        if len(place.path) <= begun:
            raise
        return []  # it was there a moment ago
    found: list[tuple[str, File | None]] = []
    for info in infos:
        name = info["name"]
        if info["type"] == "directory":
            if name.rstrip("/") != place.path:
                found.append((name.rstrip("/"), None))
        elif info["type"] == "file":
            found.append((name, file_of(info)))
        elif info.get("islink") and not fs.isdir(name):  # one that leads nowhere is an image that is missing
            found.append((name, file_of(info if fs.exists(name) else info | {"size": None})))
    return found


def file_of(info: dict[str, Any]) -> File:
    """A listing's entry as a file."""
    return File(info["name"], info.get("size"), version_of(info))
