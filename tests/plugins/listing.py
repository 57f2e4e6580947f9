"""Helpers to list a source: its items, and the last parts of their URIs."""

from pathlib import Path

from pipeline.inputs.item import kept_rows
from pipeline.sources import source
from pipeline.table.kept_columns import Keep


def items(uri, column="uri"):
    return list(source.list_items(str(uri), column, {}))


def names(uri, column="uri"):
    return [item.uri.rpartition("/")[2] for item in items(uri, column)]


def write(folder: Path, *files: str, data: bytes = b"x") -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    return folder


def kept(uri, *entries, column="uri"):
    """Return the last parts of a source's URIs, each with the values of the columns to keep."""
    keep = Keep(entries)
    found = list(source.list_items(str(uri), column, {}, keep=keep))
    keep.check_found("the input")
    rows = kept_rows(found).to_pylist()
    return [(item.uri.rpartition("/")[2], *row.values()) for item, row in zip(found, rows, strict=True)]
