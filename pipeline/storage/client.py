"""Single requests to storage, retried as `pipeline.storage.retry` decides.

Refused credentials are read again before the next attempt. If they are still refused, that is a `StorageError`.
"""

import errno
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import fsspec
import fsspec.asyn
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import StorageError
from pipeline.storage import retry
from pipeline.storage.libraries import is_http, is_hugging_face, is_s3
from pipeline.storage.retry import Policy, RangeError, ShortError
from pipeline.storage.uris import without_secrets
from ugrie.text import one_line

T = TypeVar("T")
CONTENT_RANGE = re.compile(r"bytes (\d{1,19}+)-\d{1,19}+/(\d{1,19}+|\*)")
RENEWING = threading.Lock()


def with_retries(fs: fsspec.AbstractFileSystem, path: str, policy: Policy, attempt: Callable[[float], T]) -> T:
    """Run `attempt` with retries (`Policy.run`), and renew refused credentials.

    Raises StorageError if they stay refused.
    """
    client = getattr(fs, "_s3", None)

    def renew() -> None:
        nonlocal client
        with RENEWING:
            if is_s3(fs) and client in (None, fs._s3):  # else another thread has renewed them
                fs.connect(refresh=True)
            client = getattr(fs, "_s3", None)

    try:
        return policy.run(attempt, renew)
    except StorageError:
        raise
    except Exception as error:
        if (code := retry.credentials_refused(error)) is None or not _refuses_all(fs, path):
            raise
        shown = without_secrets(fs.unstrip_protocol(path))
        if code in retry.CREDENTIALS:
            message = f"the credentials for {shown} are expired or wrong ({code}): renew them; the same --run-id resumes the run"
        else:
            message = f"there are no credentials for {shown} ({code}): provide them; the same --run-id resumes the run"
        raise StorageError(one_line(message)) from None


@contextmanager
def naming_full_disk(path: str) -> Iterator[None]:
    """Turn the error of a full disk, or of a quota that is used up, into a StorageError that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageError(f"{path} can't be written, since its disk is full: free some space") from None


def _refuses_all(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    """Return whether the storage refuses a harmless request too: some servers reject the signature of a single odd key."""
    if not is_s3(fs):
        return True
    try:
        read_range(fs, f"{fs.split_path(path)[0]}/ugrie-asks-who-it-is", seconds=10)
    except Exception as error:  # "not found" or "access denied" shows that the credentials are accepted
        return retry.credentials_refused(error) is not None
    return False


def read_range(
    fs: fsspec.AbstractFileSystem, path: str, seconds: float, start: int = 0, end: int | None = None, version: str | None = None
) -> bytes:
    """Read bytes [start, end) of a file, or as many of them as exist, in one request.

    Never holds more bytes than that, whatever the server sends. With `version`, an ETag, S3 refuses an object that has
    changed since (412 PreconditionFailed). Raises RangeError where S3 or a web server sends other bytes of the file.
    """
    if isinstance(fs, LocalFileSystem):  # fsspec's own method takes three times as long, most of the time for small files
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(-1 if end is None else end - start)
    if is_hugging_face(fs) and end is not None:
        return _get_hugging_face(fs, path, start, end)
    if not fs.async_impl:
        return fs.cat_file(path, start=start, end=end)
    if is_s3(fs):
        return fsspec.asyn.sync(fs.loop, _get_s3, fs, path, start, end, version, timeout=seconds)[0]
    if is_http(fs):
        return fsspec.asyn.sync(fs.loop, _get_http, fs, path, start, end, timeout=seconds)
    return fsspec.asyn.sync(fs.loop, fs._cat_file, path, start=start, end=end, timeout=seconds)


def _get_hugging_face(fs: fsspec.AbstractFileSystem, path: str, start: int, end: int) -> bytes:
    """Read bytes [start, end) of a file on the hub in one request: with a size given, its client does not list the file's folder first."""
    try:
        return bytes(fs.open(path, "rb", size=end)._fetch_range(start, end)[: end - start])
    except Exception as error:  # the client has kinds of its own
        if retry.http_status(error) == 404:
            raise FileNotFoundError(path) from error
        raise


def read_tail(fs: fsspec.AbstractFileSystem, path: str, seconds: float, length: int, version: str | None = None) -> tuple[bytes, int]:
    """Read the last `length` bytes of a file, or all if it has fewer, and return them with its size. S3 needs one request.

    Raises ShortError if fewer bytes arrive.
    """
    if is_s3(fs):
        data, size = fsspec.asyn.sync(fs.loop, _get_s3, fs, path, -length, None, version, timeout=seconds)
    else:
        fs.invalidate_cache()
        size = fs.info(path)["size"]
        data = read_range(fs, path, seconds, max(size - length, 0), size)
    if len(data) < min(length, size):
        raise ShortError(f"{len(data)} bytes came of {min(length, size)}")
    return data, size


def _range(start: int, end: int | None) -> dict[str, str]:
    """Return the header for bytes [start, end), or for the last ones if `start` is negative."""
    if start < 0:
        return {"Range": f"bytes={start}"}
    return {} if start == 0 and end is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}


def _size_of(start: int, content_range: str | None, length: int | None) -> int | None:
    """Return a file's size by the headers of the response to `_range(start, …)`, or None if they don't state it.

    Raises RangeError if the response does not begin at `start`. Some servers ignore the Range header, or mistake it.
    """
    if content_range is None:  # the whole file
        first, size = 0, length
    elif match := CONTENT_RANGE.fullmatch(content_range.strip()):
        first, size = int(match[1]), None if match[2] == "*" else int(match[2])
    else:
        raise RangeError(f"the server's answer has the Content-Range {one_line(content_range, 80)!r}")
    if start < 0:
        if size is None:
            raise RangeError("the server does not say how long the file is")
        start = max(size + start, 0)
    if first != start:
        raise RangeError(f"the server sent the file from byte {first} on, not from byte {start}")
    return size


async def _get_s3(fs: Any, path: str, start: int, end: int | None, version: str | None) -> tuple[bytes, int]:
    """Return bytes [start, end) of an object, or the last ones if `start` is negative, and its size.

    s3fs's own method sends a HEAD first and retries by itself.
    """
    from botocore.exceptions import ClientError
    from s3fs.errors import translate_boto_error

    bucket, key, object_version = fs.split_path(path)
    await fs.set_session()
    client = await fs.get_s3(bucket)
    request = {"Bucket": bucket, "Key": key, **_range(start, end)}
    request |= {"IfMatch": f'"{version}"'} if version else {}
    request |= {"VersionId": object_version} if object_version else {}
    try:
        response = await client.get_object(**fs._get_s3_method_kwargs(client.get_object, request))
    except ClientError as error:
        raise translate_boto_error(error) from error
    async with response["Body"] as body:
        size = _size_of(start, response.get("ContentRange"), response.get("ContentLength"))
        most = -start if start < 0 else None if end is None else end - start
        return await _read_at_most(body, most), size or 0


async def _get_http(fs: Any, url: str, start: int, end: int | None) -> bytes:
    session = await fs.set_session()
    headers = {"Accept-Encoding": "identity", **fs.kwargs.get("headers", {}), **(_range(start, end) if start else {})}
    async with session.get(fs.encode_url(url), **fs.kwargs | {"headers": headers}) as response:
        fs._raise_not_found_for_status(response, url)
        _size_of(start, response.headers.get("Content-Range"), response.content_length)
        if start and response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise RangeError("the server sent a part of a compressed file")
        return await _read_at_most(response.content, None if end is None else end - start)


async def _read_at_most(stream: Any, length: int | None) -> bytes:
    """Read up to `length` bytes of a stream; None: all of it."""
    if length is None:
        return await stream.read()
    chunks, missing = [], length
    while missing > 0 and (chunk := await stream.read(missing)):
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)
