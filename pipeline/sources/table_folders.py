"""Folders that are a table of Delta or Iceberg: which rows such a table has, only its log says, and never its Parquet files alone."""

import posixpath
import re
from collections.abc import Iterable
from typing import NamedTuple

import fsspec

from pipeline.storage.files import list_with_retries
from pipeline.storage.libraries import is_http
from pipeline.storage.parallel import parallel_map
from pipeline.storage.retry import is_transient

GLOB = re.compile(r"[*?\[{]")
METADATA = re.compile(r"(?:v(?P<version>\d+)|(?P<number>\d{5,})-[^/]+?)(?:\.gz)?\.metadata\.json(?:\.gz)?")  # a file of Iceberg
_PINNED = re.compile(r"(?P<root>.+)@v(?P<version>\d+)/*")  # a version of a Delta table
THREADS = 16  # folders looked at at once


class TableFolder(NamedTuple):
    """A table's kind and folder. `version` is that of Delta, if one is asked for, `metadata` the file of Iceberg that is named."""

    kind: str
    root: str
    version: int | None = None
    metadata: str | None = None


def table_at(fs: fsspec.AbstractFileSystem, path: str) -> TableFolder | None:
    """Return the table that is at a path: a folder, `folder@v12` (a version of a Delta table) or Iceberg's `….metadata.json`."""
    if is_http(fs):
        return None
    folder, name = posixpath.split(path)
    if METADATA.fullmatch(name):
        root = posixpath.dirname(folder) if posixpath.basename(folder) == "metadata" else folder
        return TableFolder("Iceberg", root, metadata=path)
    if GLOB.search(path):
        return None
    found = _table(fs, path.rstrip("/"))
    if found is None and (pinned := _PINNED.fullmatch(path)) is not None:
        found = _table(fs, pinned["root"])
        return found._replace(version=int(pinned["version"])) if found is not None and found.kind == "Delta" else None
    return found


def table_around(fs: fsspec.AbstractFileSystem, path: str, files: Iterable[str] = ()) -> TableFolder | None:
    """Return the table whose folder holds a path, which may be a glob, or one of the `files` that braces in it stand for."""
    if is_http(fs):
        return None
    folders: dict[str, None] = {}
    for each in files if "{" in path else [path.rstrip("/")]:
        folder = posixpath.dirname(GLOB.split(each, maxsplit=1)[0])
        while folder not in ("", "/", *folders):
            folders[folder] = None
            folder = posixpath.dirname(folder)
    return next((found for found in parallel_map(lambda each: _table(fs, each), folders, THREADS) if found is not None), None)


def _table(fs: fsspec.AbstractFileSystem, folder: str) -> TableFolder | None:
    if _is_folder(fs, f"{folder}/_delta_log"):
        return TableFolder("Delta", folder)
    return TableFolder("Iceberg", folder) if metadata_files(fs, folder) else None


def metadata_files(fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    """Return the paths of the metadata files of an Iceberg table; none if the folder is not one's."""
    folder = f"{root}/metadata"
    if not _is_folder(fs, folder):
        return []
    paths = list_with_retries(fs, folder, lambda: fs.ls(folder, detail=False))
    return sorted(path for path in paths if METADATA.fullmatch(posixpath.basename(path)))


def _is_folder(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    try:
        return bool(list_with_retries(fs, path, lambda: fs.isdir(path)))
    except Exception as error:  # storage clients raise kinds of their own
        if is_transient(error):
            raise  # it may be a folder: what is in it must not be read as something else
        return False  # a prefix that may be listed can refuse those above it; credentials that are refused are so again by the listing
