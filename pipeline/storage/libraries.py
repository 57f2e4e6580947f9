"""Tells which library a file system or an error is from, without importing it: s3fs and aiohttp take a worker a second.

Nothing can be of a class whose module is not imported yet.
"""

import sys
from typing import Any


def is_s3(fs: Any) -> bool:
    """Return whether a file system is s3fs's."""
    return isinstance(fs, loaded("s3fs.S3FileSystem"))


def is_http(fs: Any) -> bool:
    """Return whether a file system is fsspec's for http(s)."""
    return isinstance(fs, loaded("fsspec.implementations.http.HTTPFileSystem"))


def is_hugging_face(fs: Any) -> bool:
    """Return whether a file system is that of the Hugging Face Hub's client."""
    return isinstance(fs, loaded("huggingface_hub.hf_file_system.HfFileSystem"))


def loaded(*names: str) -> tuple[type, ...]:
    """Return those of the classes, named with their modules, that are imported. Another thread may be just importing a module."""
    parts = (name.rpartition(".") for name in names)
    found = (getattr(sys.modules.get(module), name, None) for module, _, name in parts)
    return tuple(kind for kind in found if kind is not None)
