"""Read, list and write files in storage, with retries. Writes are atomic."""

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

from pipeline.storage import retry
from pipeline.storage.client import naming_full_disk, read_range, with_retries
from pipeline.storage.filesystem import etag, version_of
from pipeline.storage.libraries import is_s3
from pipeline.storage.retry import Policy, ShortError

T = TypeVar("T")
PART_SIZE = 8 * 2**20  # bytes per part of a multipart upload


def read(fs: fsspec.AbstractFileSystem, path: str, policy: Policy = Policy()) -> bytes:  # noqa: B008  (it is frozen)
    """Read a whole small file: a record, a plan, a block."""
    return with_retries(fs, path, policy, lambda seconds: read_range(fs, path, seconds))


def list_with_retries(fs: fsspec.AbstractFileSystem, path: str, listing: Callable[[], T]) -> T:
    """Return the result of `listing`, a call that lists `fs`, with retries and without fsspec's cache. Calls have no timeout."""

    def attempt(seconds: float) -> T:
        fs.invalidate_cache()
        return listing()

    return with_retries(fs, path, Policy(seconds=3600, attempts=6), attempt)


class Ranges(AbstractBufferedFile):
    """A remote file open for reading. Each range is read with retries; in S3 all ranges are of the version first listed."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        def attempt(seconds: float) -> bytes:
            data = read_range(self.fs, self.path, seconds, start, end, etag(self.fs, version_of(self.details)))
            if len(data) < min(end, self.size) - start:
                raise ShortError(f"{len(data)} bytes came of {min(end, self.size) - start}")
            return data

        return with_retries(self.fs, self.path, Policy(seconds=120 + (end - start) / 1e6), attempt)


def open_file(fs: fsspec.AbstractFileSystem, path: str, info: dict[str, Any] | None = None, ahead: int = 2**20) -> IO[bytes]:
    """Open a file for random reads. `info` is its entry in a listing, `ahead` the bytes to read at a time."""
    if not fs.async_impl:
        return fs.open(path, "rb")
    info = info or list_with_retries(fs, path, lambda: fs.info(path))
    file = Ranges(fs, path, size=info["size"], block_size=ahead)
    file._details = info
    return file


def write_atomic(fs: fsspec.AbstractFileSystem, path: str, data: bytes, content_type: str | None = None) -> None:
    """Write a file atomically: it exists whole or not at all, even if the writer dies half-way.

    Object stores show an object once its upload is complete. On a local disk the bytes go to a hidden file in the same folder,
    which is renamed when complete. S3 sends the `content_type` to browsers, so that they show the file and do not download it.
    """
    with naming_full_disk(path):
        with_retries(fs, path, _write_policy(len(data)), lambda seconds: _put(fs, path, data, seconds, content_type=content_type))


def upload_atomic(fs: fsspec.AbstractFileSystem, file: str, path: str) -> None:
    """Upload a local file atomically, as `write_atomic`, without loading all of it into memory."""

    def attempt(seconds: float) -> None:
        if isinstance(fs, LocalFileSystem):
            with open(file, "rb") as data, _draft(path, data) as draft:
                os.replace(draft, path)
        elif is_s3(fs):
            fsspec.asyn.sync(fs.loop, fs._put_file, file, path, chunksize=PART_SIZE, max_concurrency=4, timeout=seconds)
        elif fs.async_impl:
            fsspec.asyn.sync(fs.loop, fs._put_file, file, path, timeout=seconds)
        else:
            fs.put_file(file, path)

    with naming_full_disk(path):
        with_retries(fs, path, _write_policy(os.path.getsize(file)), attempt)


def create_atomic(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> bool:
    """Write a file atomically, as `write_atomic`, unless it already exists. Of several concurrent writers one succeeds.

    Returns whether the file is this writer's. A file with the same bytes counts as such, since an earlier attempt may
    have written it and lost the response. Writers that must be told apart put something unique into the data.

    S3 and SeaweedFS (tested with 4.48) decide by `If-None-Match: *` and answer 412, local disks by a hard link, which fails
    if the name exists. fsspec's other file systems check first and then write, unless they implement something better.
    """
    try:
        with naming_full_disk(path):
            with_retries(fs, path, _write_policy(len(data)), lambda seconds: _put(fs, path, data, seconds, new=True))
    except OSError as error:
        if not isinstance(error, FileExistsError) and retry.http_status(error) != 412:
            raise
    else:
        return True
    return read(fs, path) == data


def _write_policy(size: int) -> Policy:
    return Policy(seconds=120 + size / 1e6)  # allows for one megabyte per second


def _put(fs: fsspec.AbstractFileSystem, path: str, data: bytes, seconds: float, new: bool = False, content_type: str | None = None) -> None:
    if isinstance(fs, LocalFileSystem):
        with _draft(path, BytesIO(data)) as draft:
            (os.link if new else os.replace)(draft, path)
        return
    settings = {"mode": "create"} if new else {}
    if content_type is not None and is_s3(fs):
        settings["ContentType"] = content_type
    if fs.async_impl:
        fsspec.asyn.sync(fs.loop, fs._pipe_file, path, data, timeout=seconds, **settings)
    else:
        fs.pipe_file(path, data, **settings)


@contextmanager
def _draft(path: str, data: IO[bytes]) -> Iterator[str]:
    """Write a hidden file beside `path`, synced to disk, and yield its name. It is removed on exit if it still exists."""
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
