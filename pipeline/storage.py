"""Files anywhere fsspec reaches: local paths, s3:// and the rest, opened with one set of storage options.

What is read and written here is asked for again where the storage fails for now (`pipeline.retry`). Credentials that are
refused are read anew before the next attempt, and are a `StorageError` if that doesn't help.
"""

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import IO, Any, TypeVar

import fsspec
import fsspec.asyn
from aiobotocore.response import StreamingBody
from botocore.exceptions import ClientError
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from pipeline import retry
from pipeline.errors import StorageError, UserError
from pipeline.retry import Policy, ShortError
from pipeline.uris import protocol, without_secrets
from ugrie.errors import one_line
from ugrie.schemes import did_you_mean

Options = dict[str, Any]
T = TypeVar("T")
RENEWING = threading.Lock()
LOCAL = ("file", "local")
UPLOADED = 8 * 2**20  # bytes at once, of a larger file


def connect(uri: str, options: Options) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path in it. Raises UserError for a protocol that is unknown or not installed.

    A URI is taken as it stands: fsspec's chains (zip://x::s3://y) are none here, so that a name may hold `::`, and a
    table's URI never means another storage than the one it begins with.
    """
    name = protocol(uri)
    known = fsspec.available_protocols()
    shown = without_secrets(uri)
    if name not in known:
        close = did_you_mean(f"{name}://", [f"{other}://" for other in known])
        raise UserError(f"'{name}://' of {shown} is no known kind of storage{close}")
    try:
        kind = fsspec.get_filesystem_class(name)
    except ImportError as error:
        raise UserError(f"{shown}: {error}") from None
    if uri.lower().startswith(f"{name}://"):
        uri = name + uri[len(name) :]
    return kind(**(kind._get_kwargs_from_urls(uri) | ({} if name in LOCAL else options))), kind._strip_protocol(uri)


def names(uri: str) -> set[str]:
    """All names of a URI's kind of storage: s3 and s3a."""
    given = fsspec.get_filesystem_class(protocol(uri)).protocol
    return {given} if isinstance(given, str) else set(given)


def for_fetching(uri: str, options: Options, connections: int, idle_seconds: float) -> Options:
    """The options of a storage that many images are fetched from at once, which the fetcher asks again itself.

    Botocore's own tries are off there and so many connections allowed as are fetched with: it has ten by default, and an
    image that waits for one would spend its time on others' stalls.
    """
    if protocol(uri) not in S3FileSystem.protocol:
        return options
    quick = {"retries": {"total_max_attempts": 1}, "max_pool_connections": connections}
    times = {"connect_timeout": idle_seconds, "read_timeout": idle_seconds}
    return options | {"config_kwargs": {**quick, **times, **options.get("config_kwargs", {})}}


def ask(fs: fsspec.AbstractFileSystem, path: str, policy: Policy, attempt: Callable[[float], T]) -> T:
    """`Policy.ask`, which reads the storage's credentials anew where they are refused. Raises StorageError if they still are."""
    client = getattr(fs, "_s3", None)

    def renew() -> None:
        nonlocal client
        with RENEWING:
            if isinstance(fs, S3FileSystem) and client in (None, fs._s3):  # else another thread has done it
                fs.connect(refresh=True)
            client = getattr(fs, "_s3", None)

    try:
        return policy.ask(attempt, renew)
    except Exception as error:
        if (code := retry.credentials_refused(error)) is None or not _refuses_all(fs, path):
            raise
        shown = without_secrets(fs.unstrip_protocol(path))
        if code in retry.CREDENTIALS:
            message = f"the credentials for {shown} are expired or wrong ({code}): renew them; the same --run-id goes on"
        else:
            message = f"there are no credentials for {shown} ({code}): give them; the same --run-id goes on"
        raise StorageError(one_line(message)) from None


def _refuses_all(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    """Whether the storage refuses a harmless request too: a single odd key can spoil a signature with some servers."""
    if not isinstance(fs, S3FileSystem):
        return True
    try:
        get(fs, f"{fs.split_path(path)[0]}/ugrie-asks-who-it-is", seconds=10)
    except Exception as error:  # that there is no such object, or that it may not be read, is the hoped for answer
        return retry.credentials_refused(error) is not None
    return False


# --- reading


def get(
    fs: fsspec.AbstractFileSystem, path: str, seconds: float, start: int = 0, end: int | None = None, version: str | None = None
) -> bytes:
    """Bytes [start, end) of a file, or those that there are, by one request. No more than those are held, whatever is sent.

    With `version`, an ETag, S3 refuses an object that is another by now (412 PreconditionFailed).
    """
    if isinstance(fs, LocalFileSystem):  # fsspec's own way takes thrice as long, which of small files is most of it
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(-1 if end is None else end - start)
    if not fs.async_impl:
        return fs.cat_file(path, start=start, end=end)
    if isinstance(fs, S3FileSystem):
        most = None if end is None else end - start
        return fsspec.asyn.sync(fs.loop, _get_s3, fs, path, _range(start, end), most, version, timeout=seconds)[0]
    if isinstance(fs, HTTPFileSystem):
        return fsspec.asyn.sync(fs.loop, _get_web, fs, path, start, end, timeout=seconds)
    return fsspec.asyn.sync(fs.loop, fs._cat_file, path, start=start, end=end, timeout=seconds)


def tail(fs: fsspec.AbstractFileSystem, path: str, seconds: float, length: int, version: str | None = None) -> tuple[bytes, int]:
    """The last bytes of a file, `length` or as many as it has, and its size; of an object in S3 by one request."""
    if isinstance(fs, S3FileSystem):
        asked = {"Range": f"bytes=-{length}"}
        data, answer = fsspec.asyn.sync(fs.loop, _get_s3, fs, path, asked, length, version, timeout=seconds)
        size = int(answer["ContentRange"].rpartition("/")[2])
    else:
        fs.invalidate_cache()
        size = fs.info(path)["size"]
        data = get(fs, path, seconds, max(size - length, 0), size)
    if len(data) < min(length, size):
        raise ShortError(f"{len(data)} bytes came of {min(length, size)}")
    return data, size


def _range(start: int, end: int | None) -> dict[str, str]:
    return {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}


async def _get_s3(fs: S3FileSystem, path: str, part: dict[str, str], most: int | None, version: str | None) -> tuple[bytes, dict[str, Any]]:
    """Unlike s3fs's own, without a HEAD before and without tries within tries. Returns what S3 says beside the bytes, too."""
    bucket, key, object_version = fs.split_path(path)
    await fs.set_session()
    client = await fs.get_s3(bucket)
    asked = {"Bucket": bucket, "Key": key, **part}
    asked |= {"IfMatch": f'"{version}"'} if version else {}
    asked |= {"VersionId": object_version} if object_version else {}
    try:
        response = await client.get_object(**fs._get_s3_method_kwargs(client.get_object, asked))
    except ClientError as error:
        raise translate_boto_error(error) from error
    async with response["Body"] as body:
        return await _at_most(body, most), response


async def _get_web(fs: HTTPFileSystem, url: str, start: int, end: int | None) -> bytes:
    session = await fs.set_session()
    headers = {"Accept-Encoding": "identity", **fs.kwargs.get("headers", {}), **(_range(start, end) if start else {})}
    async with session.get(fs.encode_url(url), **fs.kwargs | {"headers": headers}) as response:
        fs._raise_not_found_for_status(response, url)
        if start and response.status != 206:
            raise OSError(f"the server of {url} can't give parts of a file")
        return await _at_most(response.content, None if end is None else end - start)


async def _at_most(stream: StreamingBody | Any, length: int | None) -> bytes:
    """Reads until there is no more, or until as much has come as is wanted."""
    if length is None:
        return await stream.read()
    chunks, missing = [], length
    while missing > 0 and (chunk := await stream.read(missing)):
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


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


# --- writing


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


# --- versions


def version_of(info: dict[str, Any]) -> str:
    """What changes when an object does: its ETag, or its time and size."""
    etag = info.get("ETag") or info.get("etag")
    if etag:
        return str(etag).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("updated") or ""
    return f"{changed}-{info.get('size')}"


def etag(fs: fsspec.AbstractFileSystem, version: str) -> str | None:
    """The version as S3 can be asked for it, or None: an ETag holds no space, the time that stands in for it does."""
    return version if isinstance(fs, S3FileSystem) and version and " " not in version else None


def is_changed(fs: fsspec.AbstractFileSystem, path: str, version: str, info: dict[str, Any] | None = None) -> bool:
    """Whether a file isn't of the version that was listed, as far as it can be told: locally, and in S3 by its entry `info`."""
    if not version:
        return False
    if isinstance(fs, LocalFileSystem):
        file = os.stat(path)
        return version_of({"mtime": file.st_mtime, "size": file.st_size}) != version
    return isinstance(fs, S3FileSystem) and info is not None and version_of(info) != version
