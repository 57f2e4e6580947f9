"""Helpers to list a source: its items, and the last parts of their URIs."""

from pathlib import Path

from pipeline.inputs import source


def items(uri, column="uri"):
    return list(source.list_items(str(uri), column, {}))


def names(uri, column="uri"):
    return [item.uri.rpartition("/")[2] for item in items(uri, column)]


def write(folder: Path, *files: str, data: bytes = b"x") -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    return folder
