"""Files in a storage: read, listed and written, each again where the storage fails for now.

What is written is there whole or not at all.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import IO, Any, TypeVar

import fsspec
import fsspec.asyn
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile
from s3fs import S3FileSystem

from pipeline.storage import retry
from pipeline.storage.client import ask, get
from pipeline.storage.filesystem import etag, version_of
from pipeline.storage.retry import Policy, ShortError

T = TypeVar("T")
UPLOADED = 8 * 2**20  # bytes at once, of a larger file


def read(fs: fsspec.AbstractFileSystem, path: str, policy: Policy = Policy()) -> bytes:  # noqa: B008  (it is frozen)
    """A whole small file: a record, a plan, a block."""
    return ask(fs, path, policy, lambda seconds: get(fs, path, seconds))


def listed(fs: fsspec.AbstractFileSystem, path: str, listing: Callable[[], T]) -> T:
    """What `listing` says, which asks `fs` what there is: afresh, and again where that fails. Its time is not bounded."""

    def attempt(seconds: float) -> T:
        fs.invalidate_cache()
        return listing()

    return ask(fs, path, Policy(seconds=3600, attempts=6), attempt)


class Ranges(AbstractBufferedFile):
    """An object that is open for reading, each part of which is asked for again where that fails, and of one version."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        def attempt(seconds: float) -> bytes:
            data = get(self.fs, self.path, seconds, start, end, etag(self.fs, version_of(self.details)))
            if len(data) < min(end, self.size) - start:
                raise ShortError(f"{len(data)} bytes came of {min(end, self.size) - start}")
            return data

        return ask(self.fs, self.path, Policy(seconds=120 + (end - start) / 1e6), attempt)


def open_file(fs: fsspec.AbstractFileSystem, path: str, info: dict[str, Any] | None = None, ahead: int = 2**20) -> IO[bytes]:
    """A file opened for reading here and there. `info` is its entry of a listing, `ahead` how many bytes are read at once."""
    if not fs.async_impl:
        return fs.open(path, "rb")
    info = info or listed(fs, path, lambda: fs.info(path))
    file = Ranges(fs, path, size=info["size"], block_size=ahead)
    file._details = info
    return file


def write_atomic(fs: fsspec.AbstractFileSystem, path: str, data: bytes, content_type: str | None = None) -> None:
    """Writes a file that is there whole or not at all, also when the writer dies half-way.

    Object stores show an object once its upload is complete. On a local disk the bytes go to a hidden neighbour that
    takes the file's name when it is complete. S3 tells a browser the `content_type`, so that it shows the file and does not keep it.
    """
    ask(fs, path, _writing(len(data)), lambda seconds: _put(fs, path, data, seconds, content_type=content_type))


def upload_atomic(fs: fsspec.AbstractFileSystem, file: str, path: str) -> None:
    """As `write_atomic`, of a local file's bytes, which are never in memory as a whole."""

    def attempt(seconds: float) -> None:
        if isinstance(fs, LocalFileSystem):
            with open(file, "rb") as data, _draft(path, data) as draft:
                os.replace(draft, path)
        elif isinstance(fs, S3FileSystem):
            fsspec.asyn.sync(fs.loop, fs._put_file, file, path, chunksize=UPLOADED, max_concurrency=4, timeout=seconds)
        elif fs.async_impl:
            fsspec.asyn.sync(fs.loop, fs._put_file, file, path, timeout=seconds)
        else:
            fs.put_file(file, path)

    ask(fs, path, _writing(os.path.getsize(file)), attempt)


def create_atomic(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    """Writes a file as `write_atomic` does, unless there is one of its name: of several writers at once one succeeds.

    Returns whether the file is this writer's. A file that holds the same bytes counts as such: it is what an attempt
    left whose answer was lost. Writers that must tell each other apart put something of their own into the data.

    S3 and SeaweedFS (tested with 4.48) decide it by `If-None-Match: *` and answer 412, local disks by a hard link that fails
    where the name is taken. fsspec's other storages look first and then write, unless they know better.
    """
    try:
        ask(fs, path, _writing(len(data)), lambda seconds: _put(fs, path, data, seconds, new=True))
    except OSError as error:
        if not isinstance(error, FileExistsError) and retry.http_status(error) != 412:
            raise
    else:
        return True
    return read(fs, path) == data


def _writing(size: int) -> Policy:
    return Policy(seconds=120 + size / 1e6)  # at least a megabyte a second


def _put(fs: fsspec.AbstractFileSystem, path: str, data: bytes, seconds: float, new: bool = False, content_type: str | None = None) -> None:
    if isinstance(fs, LocalFileSystem):
        with _draft(path, BytesIO(data)) as draft:
            (os.link if new else os.replace)(draft, path)
        return
    mode = {"mode": "create"} if new else {}
    if content_type is not None and isinstance(fs, S3FileSystem):
        mode["ContentType"] = content_type
    if fs.async_impl:
        fsspec.asyn.sync(fs.loop, fs._pipe_file, path, data, timeout=seconds, **mode)
    else:
        fs.pipe_file(path, data, **mode)


@contextmanager
def _draft(path: str, data: IO[bytes]) -> Iterator[str]:
    """A complete hidden neighbour of a file, which is gone in the end."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    draft = os.path.join(folder, f".{name}.{uuid.uuid4().hex}")
    try:
        with open(draft, "wb") as file:
            shutil.copyfileobj(data, file)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        with suppress(FileNotFoundError):
            os.remove(draft)
