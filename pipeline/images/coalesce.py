"""Coalescing of reads: neighbours in a .tar are read by one request, rows of a Parquet table by one reader.

A request to an object store takes as long as reading some megabytes, so one request per small image would be mostly waiting.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.inputs.kinds import PARQUET, kind_of

Row = dict[str, Any]  # of the manifest

MAX_REQUEST_BYTES = 4 * 2**20  # bytes that one request reads at most, where several images share it
MAX_GAP = 2**18  # bytes between two neighbours, such as headers and labels, that are read along rather than skipped
PREFETCH_BYTES = 4 * MAX_REQUEST_BYTES  # bytes of shared requests that are made before they are needed


def coalesce(rows: Iterable[Row], max_bytes: int) -> Iterator[list[Row]]:
    """Return the rows in their order, as batches that are read together. Most images are alone in theirs.

    Members of more than `max_bytes`, or of none, are alone too: they are not read.
    """
    batch: list[Row] = []
    for row in rows:
        if batch and not _fits(batch, row, max_bytes):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def is_table(row: Row) -> bool:
    """Return whether an image is in a row of a Parquet table."""
    return row["container"] is not None and kind_of(row["container"]) == PARQUET


def span(batch: list[Row]) -> Row:
    """Return a batch of .tar members as the row of one large member."""
    return batch[0] | {"size": _end(batch[-1]) - batch[0]["position"]}


def span_bytes(batch: list[Row]) -> int:
    """Return the bytes of a batch's shared request, or 0 if it has none."""
    return span(batch)["size"] if len(batch) > 1 and not is_table(batch[0]) else 0


def _fits(batch: list[Row], row: Row, max_bytes: int) -> bool:
    first, last = batch[0], batch[-1]
    if row["container"] is None or (first["container"], first["version"]) != (row["container"], row["version"]):
        return False
    if is_table(row):
        return True
    if not all(0 < member["size"] <= max_bytes for member in (last, row)):
        return False
    return 0 <= row["position"] - _end(last) <= MAX_GAP and _end(row) - first["position"] <= MAX_REQUEST_BYTES


def _end(row: Row) -> int:
    return row["position"] + row["size"]
