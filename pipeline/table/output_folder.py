"""The folder or prefix that a table lies in: its layout, and reading and writing below it.

    OUTPUT/annotations/dt=YYYY-MM-DD/part-<run_id>-<attempt>-00000.parquet
    OUTPUT/runs/<run_id>.json  <run_id>.html
    OUTPUT/runs/<run_id>.files/<attempt>-00000.json                lists of a run's files, where they are too many for the record
    OUTPUT/index.html                                              the page of all nights
    OUTPUT/iceberg.json  iceberg.db                                an Iceberg table's name, and its catalog
    OUTPUT/_work/<run_id>/plan.json  manifest-<attempt>/  rows/    until the run is committed

Paths are relative to the folder, as records state them. Each request is retried (`pipeline.storage.retry`).
"""

import datetime as dt
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import IO, Any

import fsspec

from pipeline.errors import UserError
from pipeline.storage.files import create_atomic, list_with_retries, open_file, read, upload_atomic, write_atomic
from pipeline.storage.filesystem import Options, connect
from pipeline.storage.libraries import is_s3
from pipeline.storage.listing import File, files_below
from pipeline.storage.uris import public_message, without_secrets

ANNOTATIONS, RUNS, WORK = "annotations", "runs", "_work"
INDEX = "index.html"
LISTS = re.compile(rf"{RUNS}/(?P<run>[^/]+)\.files/[^/]+")
COMPARED_BYTES = 8 * 2**20
REMOVED_AT_ONCE = 1000  # by one request of S3
ICEBERG_NAME, ICEBERG_CATALOG = "iceberg.json", "iceberg.db"


def partition(date: dt.date) -> str:
    """Return the folder of a date's files."""
    return f"{ANNOTATIONS}/dt={date.isoformat()}"


def record_path(run_id: str) -> str:
    return f"{RUNS}/{run_id}.json"


def lists_folder(run_id: str) -> str:
    """Return the folder of the lists of a run's files."""
    return f"{RUNS}/{run_id}.files"


def lists_owner(path: str) -> str | None:
    """Return the ID of the run that a list of files is of; None for any other path."""
    named = LISTS.fullmatch(path)
    return named and named["run"]


def work_folder(run_id: str) -> str:
    """Return the folder of a run that is not committed yet."""
    return f"{WORK}/{run_id}"


@dataclass(frozen=True)
class OutputFolder:
    """An output by its URI and fsspec's options, which are secret. It can be pickled; each process connects for itself."""

    uri: str
    options: Options = field(repr=False)

    @cached_property
    def _place(self) -> tuple[fsspec.AbstractFileSystem, str]:
        fs, root = connect(self.uri, self.options)
        return fs, root.rstrip("/")

    def __reduce__(self) -> tuple[type["OutputFolder"], tuple[str, Options]]:
        return type(self), (self.uri, self.options)  # without the connection

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The file system. Raises UserError where the URI's protocol is unknown or not installed."""
        return self._place[0]

    @property
    def root(self) -> str:
        """The folder's path in the file system, without a slash at its end."""
        return self._place[1]

    def absolute(self, path: str) -> str:
        """Return the file system's path of a path within the folder."""
        return f"{self.root}/{path}"

    def read(self, path: str) -> bytes:
        """Return a small file's bytes. Raises FileNotFoundError, and the storage's errors."""
        return read(self.fs, self.absolute(path))

    def read_json(self, path: str) -> Any:
        """Return a JSON file's value, or None where there is no file. Raises UserError where it can't be read."""
        with self.readable():
            try:
                return json.loads(self.read(path))
            except FileNotFoundError:
                return None

    def open(self, path: str, ahead: int = 2**20) -> IO[bytes]:
        """Open a file for reading at any position; `ahead` bytes are read at once."""
        return open_file(self.fs, self.absolute(path), ahead=ahead)

    def entries(self, path: str) -> list[dict[str, Any]]:
        """Return fsspec's entries of a folder, with `name` as the file system's path; none where there is no such folder."""
        folder = self.absolute(path)

        def entries() -> list[dict[str, Any]]:
            return self.fs.ls(folder, detail=True) if self.fs.exists(folder) else []

        return list_with_retries(self.fs, folder, entries)

    def files(self, path: str) -> Iterator[File]:
        """Yield the files of a folder that may hold millions, without markers and hidden files; none where there is no such folder.

        They are never in memory all at once, and in S3 a long folder is listed in several ranges at a time.
        """
        try:
            yield from files_below(self.fs, self.absolute(path), levels=0)
        except FileNotFoundError:
            return

    def names(self, path: str) -> list[str]:
        """Return the names of the files and folders in a folder; none where there is no such folder."""
        return [entry["name"].rstrip("/").rpartition("/")[2] for entry in self.entries(path)]

    def find(self, path: str = "") -> dict[str, dict[str, Any]]:
        """Return fsspec's entries of all files in the folder, or in a folder within it, by their path within that."""
        folder = self.absolute(path) if path else self.root
        found = list_with_retries(self.fs, folder, lambda: self.fs.find(folder, detail=True))
        prefix = f"{folder}/"
        return {name.removeprefix(prefix): entry for name, entry in found.items() if name.startswith(prefix)}

    def exists(self, path: str) -> bool:
        return list_with_retries(self.fs, self.root, lambda: self.fs.exists(self.absolute(path)))

    def write(self, path: str, data: bytes, content_type: str | None = None) -> None:
        """Write a file, whole or not at all."""
        write_atomic(self.fs, self.absolute(path), data, content_type)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless one of its name exists: of several writers at once one succeeds. Return whether this one did."""
        return create_atomic(self.fs, self.absolute(path), data)

    def upload(self, file: str, path: str) -> None:
        """Copy a local file to the folder, whole or not at all."""
        upload_atomic(self.fs, file, self.absolute(path))

    def holds(self, path: str, file: str) -> bool:
        """Return whether a file of the folder has exactly the bytes of a local one."""
        with self.open(path, ahead=COMPARED_BYTES) as ours, open(file, "rb") as local:
            while (piece := local.read(COMPARED_BYTES)) and piece == ours.read(COMPARED_BYTES):
                pass
            return not piece and not ours.read(1)

    def remove(self, path: str, recursive: bool = False) -> None:
        """Remove a file, or a folder with all that is in it. Raises FileNotFoundError where there is none."""
        if not recursive:
            self.fs.rm_file(self.absolute(path))
            return
        removed = 0
        if is_s3(self.fs):  # fsspec would hold some kilobyte for each of millions of files
            found = files_below(self.fs, self.absolute(path))
            while some := [file.name for file in islice(found, REMOVED_AT_ONCE)]:
                self.fs.rm(some)
                removed += len(some)
        try:
            self.fs.rm(self.absolute(path), recursive=True)
        except FileNotFoundError:
            if not removed:
                raise

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turn any error of reading into a UserError that says what to check."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # storage clients raise kinds of their own
            message = public_message(error, self.options)
            raise UserError(f"the output can't be read: {message}; check the path and the credentials") from None

    @contextmanager
    def writable(self) -> Iterator[None]:
        """Turn an OSError of writing into a UserError that says what to check."""
        try:
            yield
        except OSError as error:
            message = public_message(error, self.options)
            raise UserError(f"{without_secrets(self.uri)} can't be written: {message}; check the path and the credentials") from None
