"""Parts of a listing: images that follow each other, in a Parquet file of the run's work folder, with their IDs."""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain, islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.inputs.item import Item
from pipeline.inputs.kinds import ImageFiles
from pipeline.inputs.manifest import BATCH
from pipeline.inputs.manifest import SCHEMA as MANIFEST
from pipeline.inputs.seen import hash_images
from pipeline.storage.left_out import LeftOut
from pipeline.table.output_folder import OutputFolder
from pipeline.table.suppressed import NOTHING, Suppressed

LISTED = [field for field in MANIFEST if field.name not in ("image_id", "retried")]
SCHEMA = pa.schema(
    [
        MANIFEST.field("image_id"),
        pa.field("rest", pa.int64(), nullable=False),  # of the image's hash: it tells apart images with one ID
        pa.field("suppressed", pa.bool_(), nullable=False),
        *LISTED,
    ]
)
MAX_ROWS = 2**18


@dataclass
class Notes:
    """What a part of a listing says besides its images: whether there were `files`, and what was left out, with the first and the last."""

    files: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    first: LeftOut | None = None
    last: LeftOut | None = None
    images: ImageFiles = field(default_factory=ImageFiles)

    def leave_out(self, found: LeftOut) -> None:
        """Count what a listing of files leaves out: a folder that comes once for each of its files, once."""
        if self.last is None or self.last.path != found.path:
            self.left_out[found.reason] += 1
        self.first, self.last = self.first or found, found

    def add(self, later: "Notes") -> None:
        """Add what the part that follows says."""
        self.files = self.files or later.files
        self.left_out.update(later.left_out)
        if self.last is not None and later.first is not None and self.last.path == later.first.path:
            self.left_out[later.first.reason] -= 1
        self.first, self.last = self.first or later.first, later.last or self.last
        self.images.add(later.images)


@dataclass(frozen=True)
class Part:
    """A part of a listing: its file, a path within the output, which has so many rows of SCHEMA; without rows there is no file."""

    path: str = ""
    rows: int = 0
    notes: Notes = field(default_factory=Notes)


@dataclass(frozen=True)
class PartWriter:
    """Writes images that are listed to files in a folder of the output; `suppressed` ones are marked.

    A file's name is its own: an attempt that is repeated, since its worker was lost, overwrites nothing.
    """

    output: OutputFolder
    folder: str
    suppressed: Suppressed = NOTHING

    def write(self, items: Iterable[Item]) -> Iterator[Part]:
        """Write the images to as many files as they take, and yield the parts."""
        tables = self._tables(iter(items))
        for first in tables:
            buffer, rows = BytesIO(), 0
            with pq.ParquetWriter(buffer, SCHEMA, compression="zstd") as writer:
                for table in chain([first], islice(tables, MAX_ROWS // BATCH - 1)):
                    writer.write_table(table)
                    rows += len(table)
            path = f"{self.folder}/{uuid.uuid4().hex}.parquet"
            with self.output.writable():
                self.output.write(path, buffer.getvalue())
            yield Part(path, rows)

    def _tables(self, items: Iterator[Item]) -> Iterator[pa.Table]:
        while batch := list(islice(items, BATCH)):
            ids, rests = hash_images(batch)
            columns = zip(*(item[:6] for item in batch), strict=True)  # LISTED has the first fields of Item in order
            listed = [pa.array(values, column.type) for column, values in zip(LISTED, columns, strict=True)]
            yield pa.table([pa.array(ids), pa.array(rests), pa.array(self._named(batch, ids)), *listed], SCHEMA)

    def _named(self, batch: Sequence[Item], ids: np.ndarray) -> np.ndarray:
        return self.suppressed.images(ids, [item.uri for item in batch]) if self.suppressed else np.zeros(len(batch), bool)
