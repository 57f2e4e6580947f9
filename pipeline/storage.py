"""Files anywhere fsspec reaches: local paths, s3:// and the rest, opened with one set of storage options."""

import os
import uuid
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import UserError
from ugrie.schemes import did_you_mean

Options = dict[str, Any]


def protocol(uri: str) -> str:
    """`s3` of `s3://bucket/key`, `file` of a local path."""
    return uri.split("://", 1)[0].lower() if "://" in uri else "file"


def connect(uri: str, options: Options) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path in it. Raises UserError for a protocol that is unknown or not installed."""
    name = protocol(uri)
    known = fsspec.available_protocols()
    if name not in known:
        close = did_you_mean(f"{name}://", [f"{other}://" for other in known])
        raise UserError(f"'{name}://' of {uri} is no known kind of storage{close}")
    try:
        return fsspec.core.url_to_fs(uri, **(options if name != "file" else {}))
    except ImportError as error:
        raise UserError(f"{uri}: {error}") from None


def write_atomic(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Writes a file that is there whole or not at all, also when the writer dies half-way.

    Object stores show an object once its upload is complete. On a local disk the bytes go to a hidden neighbour that
    takes the file's name when it is complete.
    """
    if isinstance(fs, LocalFileSystem):
        folder, name = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        draft = os.path.join(folder, f".{name}.{uuid.uuid4().hex}")
        try:
            with open(draft, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            if os.path.exists(draft):
                os.remove(draft)
            raise
    else:
        fs.pipe_file(path, data)


def version_of(info: dict[str, Any]) -> str:
    """What changes when an object does: its ETag, or its time and size."""
    etag = info.get("ETag") or info.get("etag")
    if etag:
        return str(etag).strip('"')
    changed = info.get("mtime") or info.get("LastModified") or info.get("last_modified") or info.get("updated") or ""
    return f"{changed}-{info.get('size')}"
