"""File systems for any URI fsspec supports (local paths, s3:// and others), all with one set of options, and versions of objects."""

import os
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import UserError
from pipeline.storage.libraries import is_s3
from pipeline.storage.uris import protocol, without_secrets
from ugrie.text import did_you_mean

Options = dict[str, Any]
LOCAL = ("file", "local")
S3 = ("s3", "s3a")


def connect(uri: str, options: Options) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return a URI's file system and the path in it. Raises UserError if the protocol is unknown or not installed.

    The URI is taken literally: fsspec's chained URLs (zip://x::s3://y) are not interpreted. So a name may contain `::`, and
    a table's URI can't reach any storage but the one it starts with.
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


def protocol_names(uri: str) -> set[str]:
    """Return all protocol names of a URI's kind of storage: s3 and s3a."""
    protocols = fsspec.get_filesystem_class(protocol(uri)).protocol
    return {protocols} if isinstance(protocols, str) else set(protocols)


def fetch_options(uri: str, options: Options, connections: int, idle_seconds: float) -> Options:
    """Return the options for fetching many images at once, with retries left to the fetcher.

    Turns off botocore's own retries, and allows as many connections as are used. Botocore's default is ten: an image
    waiting for one of them would spend its time on other images' stalls.
    """
    if protocol(uri) not in S3:
        return options
    limits = {"retries": {"total_max_attempts": 1}, "max_pool_connections": connections}
    timeouts = {"connect_timeout": idle_seconds, "read_timeout": idle_seconds}
    return options | {"config_kwargs": {**limits, **timeouts, **options.get("config_kwargs", {})}}


def version_of(info: dict[str, Any]) -> str:
    """Return an object's version: its ETag, on the Hugging Face Hub its digest in Git, or else its modification time and size."""
    etag = info.get("ETag") or info.get("etag") or info.get("blob_id")
    if etag:
        return str(etag).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("updated") or ""
    return f"{changed}-{info.get('size')}"


def etag(fs: fsspec.AbstractFileSystem, version: str) -> str | None:
    """Return a version as the ETag for a conditional request to S3, or None if it is none.

    An ETag holds no space; the modification time that replaces a missing one does.
    """
    return version if is_s3(fs) and version and " " not in version else None


def is_changed(fs: fsspec.AbstractFileSystem, path: str, version: str, info: dict[str, Any] | None = None) -> bool:
    """Return whether a file differs from the listed version. Only detected locally, and in S3 if its entry `info` is given."""
    if not version:
        return False
    if isinstance(fs, LocalFileSystem):
        file = os.stat(path)
        return version_of({"mtime": file.st_mtime, "size": file.st_size}) != version
    return is_s3(fs) and info is not None and version_of(info) != version
