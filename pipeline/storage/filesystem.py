"""Storages anywhere fsspec reaches: local paths, s3:// and the rest, with one set of options; and what tells an object's versions apart."""

import os
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from s3fs import S3FileSystem

from pipeline.errors import UserError
from pipeline.storage.uris import protocol, without_secrets
from ugrie.text import did_you_mean

Options = dict[str, Any]
LOCAL = ("file", "local")


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
