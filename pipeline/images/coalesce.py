"""Rows that are read together: the neighbours in a .tar by one request, the rows of a Parquet table by one reader.

A request of object stores takes as long as some megabytes do, and a .tar of small images would be nothing but requests.
"""

from collections.abc import Iterable, Iterator
from typing import Any

Row = dict[str, Any]

SPAN = 4 * 2**20  # bytes that one request reads at most, where several images share it
GAP = 2**18  # bytes between two neighbours, such as headers and labels, that are read rather than asked around
AHEAD = 4 * SPAN  # bytes of spans that are asked for before they are needed


def pieces(rows: Iterable[Row], max_bytes: int) -> Iterator[list[Row]]:
    """The rows in their order, those that are read together as one list; most are alone."""
    piece: list[Row] = []
    for row in rows:
        if piece and not _together(piece, row, max_bytes):
            yield piece
            piece = []
        piece.append(row)
    if piece:
        yield piece


def is_table(row: Row) -> bool:
    """Whether an image lies in a row of a Parquet table."""
    return row["container"] is not None and row["container"].lower().endswith(".parquet")


def span(piece: list[Row]) -> Row:
    """A piece of a .tar as the row of one large member."""
    return piece[0] | {"size": _end(piece[-1]) - piece[0]["position"]}


def length(piece: list[Row]) -> int:
    """The bytes of the span that a piece shares, or 0."""
    return span(piece)["size"] if len(piece) > 1 and not is_table(piece[0]) else 0


def _together(piece: list[Row], row: Row, max_bytes: int) -> bool:
    first, last = piece[0], piece[-1]
    if row["container"] is None or (first["container"], first["version"]) != (row["container"], row["version"]):
        return False
    if is_table(row):
        return True
    if not all(0 < each["size"] <= max_bytes for each in (last, row)):  # neither is asked for at all
        return False
    return 0 <= row["position"] - _end(last) <= GAP and _end(row) - first["position"] <= SPAN


def _end(row: Row) -> int:
    return row["position"] + row["size"]
