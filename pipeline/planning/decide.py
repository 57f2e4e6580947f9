"""Decides which of the listed images a run annotates: each once, without those that earlier runs annotated.

Images are brought together by their IDs, whichever part of the listing and whichever earlier run names them (`shuffle.py`). An image's
place in the listing is the number of its part and its row there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.table.image_ids import PastFiles
from pipeline.table.output_folder import OutputFolder

ANNOTATED, FAILED = -2, -1  # places of the images of earlier runs
ROW_BITS = 32
NAMED = pa.schema(
    [
        pa.field("image_id", pa.int64()),
        pa.field("rest", pa.int64()),  # of the image's hash
        pa.field("place", pa.int64()),
        pa.field("suppressed", pa.bool_()),
    ]
)


class Outcome(IntEnum):
    """What is decided of an image. Of those that the run annotates, and of those that share an ID, each is told; the others are counted."""

    NEW = 0
    RETRIED = 1  # failed in an earlier run
    COLLIDED = 2  # has the ID of another image that was listed before it
    KNOWN = 3
    SUPPRESSED = 4


DECIDED = pa.schema(
    [
        pa.field("place", pa.int64()),
        pa.field("image_id", pa.int64()),
        pa.field("outcome", pa.int8()),
        pa.field("count", pa.int64()),  # of the images that are only counted, which have no place
    ]
)


def place_of(part: int | np.ndarray, row: int | np.ndarray) -> np.ndarray:
    """Return the places of rows of parts: int64, in the order of the listing."""
    return (np.asarray(part, np.int64) << ROW_BITS) | np.asarray(row, np.int64)


@dataclass(frozen=True)
class IdReader:
    """Operator from files to the images that they name (NAMED), a table for each file.

    A file is a `path` within the output: with a number of its `part` in the listing, or without one if it is of earlier runs.
    """

    output: OutputFolder
    past: PastFiles

    def __call__(self, files: pa.Table) -> Iterator[pa.Table]:
        for part, path in zip(*(files[name].to_pylist() for name in ("part", "path")), strict=True):
            yield self._of_part(part, path) if part >= 0 else self._of_past(path)

    def _of_part(self, part: int, path: str) -> pa.Table:
        with self.output.open(path) as file:
            rows = pq.read_table(file, columns=["image_id", "rest", "suppressed"], use_threads=False)
        places = pa.array(place_of(part, np.arange(len(rows))))
        return pa.table([rows["image_id"], rows["rest"], places, rows["suppressed"]], NAMED)

    def _of_past(self, path: str) -> pa.Table:
        found = self.past.read(self.output, path)
        places = np.repeat([ANNOTATED, FAILED], [len(found.annotated), len(found.failed)])
        ids = np.concatenate(found)
        return pa.table([pa.array(ids), pa.nulls(len(ids), pa.int64()), pa.array(places), pa.nulls(len(ids), pa.bool_())], NAMED)


def decide(named: pa.Table) -> pa.Table:
    """Decide on images: `named` are all rows (NAMED) with some IDs. Returns DECIDED, as `Outcome` says."""
    ids, places = named["image_id"].to_numpy(), named["place"].to_numpy()
    rests = named["rest"].fill_null(0).to_numpy()
    suppressed = named["suppressed"].fill_null(False).to_numpy()
    order = np.lexsort((places, ids))  # in a group of one ID, those of earlier runs come first
    ids, places, rests, suppressed = (values[order] for values in (ids, places, rests, suppressed))
    starts = np.flatnonzero(np.append(True, ids[1:] != ids[:-1])[: len(ids)])
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(ids))))
    known = places[starts] == ANNOTATED if len(starts) else np.empty(0, bool)
    failed = np.zeros(len(starts), bool)
    failed[group[places == FAILED]] = True
    listed = np.flatnonzero(places >= 0)
    first = np.append(True, group[listed][1:] != group[listed][:-1])[: len(listed)]  # the one that the ID belongs to
    owner = np.maximum.accumulate(np.where(first, np.arange(len(listed)), 0))
    collided = listed[rests[listed] != rests[listed][owner]]
    firsts = listed[first]
    outcomes = np.select(
        [suppressed[firsts], known[group[firsts]], failed[group[firsts]]], [Outcome.SUPPRESSED, Outcome.KNOWN, Outcome.RETRIED], Outcome.NEW
    )
    told = np.append(firsts[outcomes <= Outcome.RETRIED], collided)
    decided = np.append(outcomes[outcomes <= Outcome.RETRIED], np.full(len(collided), Outcome.COLLIDED))
    counted = [(outcome, int((outcomes == outcome).sum())) for outcome in (Outcome.KNOWN, Outcome.SUPPRESSED)]
    counts = pa.Table.from_pylist([{"outcome": outcome, "count": number} for outcome, number in counted if number], DECIDED)
    rows = pa.table([pa.array(places[told]), pa.array(ids[told]), pa.array(decided, pa.int8()), pa.nulls(len(told), pa.int64())], DECIDED)
    return pa.concat_tables([rows, counts])
