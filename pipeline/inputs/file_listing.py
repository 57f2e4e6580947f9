"""The files that `--input` names, whatever they hold: a file, those of a folder, a prefix or a glob, or all that braces stand for."""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
        try:
            info = self._info(path)
            paths = [path] if info else expand_braces(path)
            if paths == [path]:
                yield from self._named(path, {} if is_prefix and is_s3(self.fs) else info)
                return
            for each, found in zip(paths, parallel_map(self._info, paths, THREADS), strict=True):
                yield from self._named(each, found)
        except UserError:
            raise
        except Exception as error:  # storage clients raise kinds of their own
            advice = "; check the credentials" if isinstance(error, PermissionError | StorageError) else ""
            raise UserError(f"{self.uri} can't be listed: {public_message(error, self.options)}{advice}") from None

    def _named(self, path: str, info: dict[str, Any]) -> Iterator[File]:
        """List the file at `path`, or those of a folder, prefix or glob."""
        empty = True
        try:
            for file in self._single(info) if info.get("type") == "file" else self._below(path):
                empty = False
                yield file
        except FileNotFoundError:
            pass
        if empty:
            one_of = "" if path in self.uri else f", as {without_secrets(path)}"
            but = f" but {left_out_text(self.left_out)}" if self.left_out else ""
            hint = ""
            if is_hugging_face(self.fs):
                hint = (
                    "; a private or gated data set needs your token as HF_TOKEN"
                    if path.startswith("datasets/")
                    else "; give hf://datasets/…"
                )
            raise UserError(f"nothing found at {self.uri}{one_of}{but}: check the path, and that it is not empty{hint}")

    def _info(self, path: str) -> dict[str, Any]:
        try:
            return list_with_retries(self.fs, path, lambda: self.fs.info(path))
        except (FileNotFoundError, NotADirectoryError, PermissionError):  # a prefix that may be listed can refuse this
            return {}

    def _single(self, info: dict[str, Any]) -> Iterator[File]:
        if marker(f"/{posixpath.basename(info['name'])}") is None:
            yield file_of(info)
        else:
            self._leave_out(LeftOut(info["name"], MARKER))

    def _below(self, path: str) -> Iterator[File]:
        """List the files of a folder, prefix or glob. A folder whose name looks like a glob is a folder."""
        if not any(c in path for c in "*?[") or list_with_retries(self.fs, path, lambda: self.fs.isdir(path)):
            return self._checked(files_below(self.fs, path, None, self._leave_out, self.skip))
        base = re.split(r"[*?[]", path)[0].rpartition("/")[0]
        levels = None if "**" in path else path[len(base) + 1 :].count("/")
        pattern = re.compile(glob_translate(path))
        files = self._checked(files_below(self.fs, base or self.fs.root_marker, levels, self._leave_out, self.skip))
        return (file for file in files if pattern.match(file.name))

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
