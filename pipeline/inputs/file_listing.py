"""The files that `--input` names, whatever they hold: a file, those of a folder, a prefix or a glob, or all that braces stand for."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import fsspec
from fsspec.utils import glob_translate

from pipeline.errors import StorageError, UserError
from pipeline.storage.braces import expand_braces
from pipeline.storage.files import list_with_retries
from pipeline.storage.filesystem import Options
from pipeline.storage.left_out import MARKER, LeftOut, marker
from pipeline.storage.libraries import is_hugging_face, is_s3
from pipeline.storage.listing import File, file_of, files_below
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import public_message, without_secrets

THREADS = 32  # files looked up at once
TABLES = {"_delta_log": "Delta", ".hoodie": "Hudi"}  # folders of tables whose files alone do not say which rows they hold


@dataclass(frozen=True)
class Place:
    """What a path of a source stands for: a file, or those below a folder, some levels deep, whose paths match a pattern; or nothing."""

    path: str
    file: File | None = None
    folder: str | None = None
    levels: int | None = None
    pattern: str | None = None

    def matching(self, files: Iterable[File]) -> Iterator[File]:
        """Return the files whose paths match."""
        if self.pattern is None:
            return iter(files)
        match = re.compile(self.pattern).match
        return (file for file in files if match(file.name))


@dataclass
class FileListing:
    """Lists the files of a source, without secrets called `uri`; `skip` are the output's own folders."""

    fs: fsspec.AbstractFileSystem
    uri: str
    options: Options
    left_out: Counter[str]
    skip: tuple[str, ...] = ()
    tables: dict[str, tuple[str, str]] = field(default_factory=dict)  # by folder, the kind of table and the path that tells it

    def files(self, path: str, is_prefix: bool = False) -> Iterator[File]:
        """List the files in the order of their paths. Raises UserError where there are none.

        `is_prefix`: the path was given with a slash at its end. An object of S3 may have the same name without it.
        """
        with self.listable():
            for place in self.places(path, is_prefix):
                empty = True
                for file in self._checked(place.matching(self._below(place))):
                    empty = False
                    yield file
                if empty:
                    raise self.nothing_found(place)

    def places(self, path: str, is_prefix: bool = False) -> Iterator[Place]:
        """Return what a path stands for, or each path that braces in it stand for."""
        info = self._info(path)
        paths = [path] if info else expand_braces(path)
        if paths == [path]:
            yield self._place(path, {} if is_prefix and is_s3(self.fs) else info)
        else:
            yield from map(self._place, paths, parallel_map(self._info, paths, THREADS))

    @contextmanager
    def listable(self) -> Iterator[None]:
        """Turn any error of listing into a UserError that says what to check."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # storage clients raise kinds of their own
            advice = "; check the credentials" if isinstance(error, PermissionError | StorageError) else ""
            raise UserError(f"{self.uri} can't be listed: {public_message(error, self.options)}{advice}") from None

    def nothing_found(self, place: Place) -> UserError:
        """Return the error for a place without files."""
        one_of = "" if place.path in self.uri else f", as {without_secrets(place.path)}"
        but = f" but {left_out_text(self.left_out)}" if self.left_out else ""
        hint = ""
        if is_hugging_face(self.fs):
            private = "; a private or gated data set needs your token as HF_TOKEN"
            hint = private if place.path.startswith("datasets/") else "; give hf://datasets/…"
        return UserError(f"nothing found at {self.uri}{one_of}{but}: check the path, and that it is not empty{hint}")

    def _info(self, path: str) -> dict[str, Any]:
        try:
            return list_with_retries(self.fs, path, lambda: self.fs.info(path))
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # a prefix that may be listed can refuse this
            return {}

    def _place(self, path: str, info: dict[str, Any]) -> Place:
        """Return a file as it is, the folder of a glob, or a folder. A folder whose name looks like a glob is a folder."""
        if info.get("type") == "file":
            if marker(f"/{posixpath.basename(info['name'])}") is None:
                return Place(path, file_of(info))
            self._leave_out(LeftOut(info["name"], MARKER))
            return Place(path)
        if not any(c in path for c in "*?[") or list_with_retries(self.fs, path, lambda: self.fs.isdir(path)):
            return Place(path, folder=path)
        base = re.split(r"[*?[]", path)[0].rpartition("/")[0]
        levels = None if "**" in path else path[len(base) + 1 :].count("/")
        return Place(path, folder=base or self.fs.root_marker, levels=levels, pattern=glob_translate(path))

    def _below(self, place: Place) -> Iterator[File]:
        if place.file is not None:
            yield place.file
        elif place.folder is not None:
            with suppress(FileNotFoundError):
                yield from files_below(self.fs, place.folder, place.levels, self._leave_out, self.skip)

    def _checked(self, files: Iterator[File]) -> Iterator[File]:
        for file in files:
            if file.name.endswith(".metadata.json") and "/metadata/" in file.name:
                self.tables[file.name.rpartition("/metadata/")[0]] = "Iceberg", file.name
            yield file

    def _leave_out(self, left_out: LeftOut) -> None:
        self.left_out[left_out.reason] += 1
        name = posixpath.basename(left_out.path)
        if name in TABLES:
            self.tables[posixpath.dirname(left_out.path)] = TABLES[name], left_out.path

    def refuse_tables(self, files: Sequence[File]) -> None:
        """Raise UserError if one of these files of tables is part of a table of Delta, Hudi or Iceberg."""
        for folder, (kind, path) in self.tables.items():
            if any(file.name.startswith(f"{folder.rstrip('/')}/") for file in files):
                remedy = "write the URIs of its rows to a .parquet, and name that" if kind == "Hudi" else "name that folder"
                raise UserError(f"{self.uri} holds a table of {kind} ({without_secrets(path)}), whose files may be removed ones: {remedy}")


def left_out_text(left_out: Mapping[str, int]) -> str:
    """Return what was left out of a listing as text."""
    return ", ".join(f"{count:,} x {reason}" for reason, count in left_out.items())
