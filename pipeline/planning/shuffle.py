"""Brings together the images of the listing and of earlier runs by their IDs, and what is decided of them by parts: a job of Ray Data.

    files -> read the IDs -> by ID -> decide -> by groups of parts -> write the new images

Both shuffles are Ray Data's, on the nodes' disks. The driver gets a row for each part.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.data import DataContext
from ray.data.context import ShuffleStrategy

from pipeline.planning.decide import ROW_BITS, IdReader, decide
from pipeline.planning.new_images import NewImagesWriter

PARTITION_ROWS = 2**21  # decided on by a task at a time
MAX_PARTITIONS = 2048
FILES_AT_ONCE = 8  # read by a task
BATCH_BYTES = 256 * 2**20  # of rows that are divided by a task
BLOCK: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}


def partitions_of(rows: int) -> int:
    """Return how many partitions there are to be for so many rows, at most, of the listing and of earlier runs."""
    return min(MAX_PARTITIONS, max(1, -(-rows // PARTITION_ROWS)))


@dataclass(frozen=True)
class Shuffle:
    """The job: images of so many `parts` of the listing, and those of earlier runs, are decided on in so many `partitions`."""

    reader: IdReader
    writer: NewImagesWriter
    parts: int
    partitions: int

    def __call__(self, files: Sequence[tuple[int, str]]) -> Iterator[pa.Table]:
        """Yield what is FOUND of the images in files, each with the number of its part in the listing, or -1 if it is of earlier runs."""
        with DataContext.current(_context()):
            names = [{"part": part, "path": path} for part, path in files]
            blocks = -(-len(files) // FILES_AT_ONCE)
            images = ray.data.from_items(names, override_num_blocks=blocks).map_batches(self.reader, **BLOCK)
            decided = images.repartition(self.partitions, keys=["image_id"]).map_batches(self._decided, **BLOCK)
            found = decided.repartition(self.partitions, keys=["group"]).map_batches(self.writer, **BLOCK)
            yield from map(pa.table, found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))

    def _decided(self, named: pa.Table) -> pa.Table:
        """Return what is decided of all images with some IDs, with the group of parts of each: neighbours are in one file."""
        decided = decide(named)
        groups = (decided["place"].fill_null(0).to_numpy() >> ROW_BITS) // -(-self.parts // self.partitions)
        return decided.append_column("group", pa.array(groups))


def _context() -> DataContext:
    context = DataContext.get_current().copy()
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the driver says what ends a run, once
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # Ray's own error does not name it
    context.shuffle_strategy = ShuffleStrategy.SHUFFLE_V2
    context.use_disk_based_hash_shuffle = True
    context.shuffle_input_batch_bytes = BATCH_BYTES
    return context
