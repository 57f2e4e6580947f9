"""The one spelling of a URI, which a listing gives, so that an image has one URI however a table or `--input` spells it."""

import os
import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

ALIASES = {"s3a": "s3", "gcs": "gs", "local": "file"}  # of fsspec's protocols, the one that its listings give
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FILE = re.compile(r"(?i)(?:file|local):(?://(?:localhost(?=/))?)?")


def canonical(uri: str) -> str:
    """Return the spelling of a URI that a listing gives; a path without a protocol stays as it is, without spaces at its ends.

    - Spaces at the ends are removed, protocols are in small letters, `s3a://` is `s3://`, `gcs://` is `gs://`.
    - `file:/x`, `file://localhost/x`, `local:///x`, `file:///./y//..//x` are `file:///x`.
    - `%20` in a `file:` URI stands for a space if there is such a file and none whose name holds the `%20` itself: RFC 8089 encodes
      names, and listings do not.
    - Keys of object stores and links are taken as they are: each spelling is another object there.
    """
    uri = uri.strip() or uri
    if (match := _FILE.match(uri)) is not None:
        path = plain(uri[match.end() :])
        return f"file://{path if '%' not in path else _existing(path)}"
    match = _SCHEME.match(uri)
    return uri if match is None else f"{ALIASES.get(name := match[1].lower(), name)}{uri[match.end(1) :]}"


def plain(path: str) -> str:
    """Return a local path without double slashes and the folders . and .."""
    if not path.startswith("/") or not ("//" in path or "/." in path):
        return path
    folder, _, name = path.rpartition("/")
    return os.path.normpath(path) if name in (".", "..") else f"{_plain_folder(folder).rstrip('/')}/{name}"


@lru_cache(2**12)
def _plain_folder(folder: str) -> str:
    """Return a folder's plain path. It keeps a `..` that follows a link, which leads elsewhere than the names say."""
    plain = os.path.normpath(f"/{folder.lstrip('/')}")
    if ".." not in folder.split("/"):
        return plain
    try:
        return plain if os.path.realpath(folder) == os.path.realpath(plain) else folder
    except ValueError:  # a name that no file can have
        return folder


def _existing(path: str) -> str:
    if os.path.lexists(path):
        return path
    try:
        decoded = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return path
    return decoded if os.path.lexists(decoded) else path
