"""Requests to a storage: each one request and no more, and asked again where the storage fails for now (`pipeline.storage.retry`).

Credentials that are refused are read anew before the next attempt, and are a `StorageError` if that doesn't help.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import fsspec
import fsspec.asyn
from aiobotocore.response import StreamingBody
from botocore.exceptions import ClientError
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.local import LocalFileSystem
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from pipeline.errors import StorageError
from pipeline.storage import retry
from pipeline.storage.retry import Policy, ShortError
from pipeline.storage.uris import without_secrets
from ugrie.text import one_line

T = TypeVar("T")
RENEWING = threading.Lock()


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
