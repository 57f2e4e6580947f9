"""Writes the files of a manifest, by tasks on any node: each the next images of the listing that are new, as `write_manifest` would."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.inputs.manifest import BLOCKS_PER_FILE, SCHEMA, part_path
from pipeline.planning.decide import ROW_BITS, Outcome
from pipeline.planning.new_images import NewImages, PlacedImages
from pipeline.planning.part import Part
from pipeline.planning.tasks import Tasks
from pipeline.table.output_folder import OutputFolder

FILES = 16  # written by a task, of 16,384 images each with blocks of 256
READ = [name for name in SCHEMA.names if name not in ("image_id", "retried")]


@dataclass(frozen=True)
class Span:
    """Consecutive files of a manifest, from a number on: so many `rows` of new images of `parts`, without the `skip` first ones.

    `parts` are the files of those parts of the listing, by their numbers.
    """

    number: int
    skip: int
    rows: int
    parts: dict[int, str]
    new: PlacedImages


@dataclass(frozen=True)
class ManifestWriter:
    """Writes spans of a manifest in the output's `folder`."""

    output: OutputFolder
    folder: str
    block_rows: int

    def __call__(self, span: Span) -> None:
        new = span.new.read(self.output).slice(span.skip, span.rows)
        size = self.block_rows * BLOCKS_PER_FILE
        for number, start in enumerate(range(0, span.rows, size), span.number):
            buffer = BytesIO()
            rows = self._rows(span.parts, new.slice(start, size))
            pq.write_table(rows, buffer, row_group_size=self.block_rows, compression="zstd")
            with self.output.writable():
                self.output.write(part_path(self.folder, number), buffer.getvalue())

    def _rows(self, parts: dict[int, str], new: pa.Table) -> pa.Table:
        """Return rows of SCHEMA for new images (PLACED), which are in the order of the listing."""
        places = new["place"].to_numpy()
        numbers, within = places >> ROW_BITS, places & (2**ROW_BITS - 1)
        listed = pa.concat_tables([self._at(parts[int(number)], within[numbers == number]) for number in np.unique(numbers)])
        retried = pc.equal(new["outcome"], int(Outcome.RETRIED))
        return pa.table([new["image_id"], *(listed[name] for name in READ), retried], SCHEMA)

    def _at(self, path: str, rows: np.ndarray) -> pa.Table:
        """Read some rows of a part, whose numbers ascend: only the row groups that they are in."""
        with self.output.open(path) as file:
            parquet = pq.ParquetFile(file, pre_buffer=True)
            ends = np.cumsum([parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)])
            groups = np.searchsorted(ends, rows, side="right")
            tables = []
            for group in np.unique(groups):
                start = ends[group - 1] if group else 0
                tables.append(parquet.read_row_group(int(group), READ, use_threads=False).take(pa.array(rows[groups == group] - start)))
        return pa.concat_tables(tables)


def write_files(tasks: Tasks[None], parts: list[Part], new: NewImages, block_rows: int) -> None:
    """Write all files of a manifest by tasks of a `ManifestWriter`. Raises UserError, StorageError."""
    for span in _spans(parts, new, block_rows * BLOCKS_PER_FILE * FILES):
        if len(tasks) >= tasks.most:
            tasks.next()
        tasks.submit(span.number, span)
    while len(tasks):
        tasks.next()


def _spans(parts: list[Part], new: NewImages, rows: int) -> Iterator[Span]:
    """Divide the new images into spans of `rows`."""
    ends = np.cumsum(new.per_part)
    for number, start in enumerate(range(0, new.rows, rows)):
        end = min(start + rows, new.rows)
        first, last = np.searchsorted(ends, start, side="right"), np.searchsorted(ends, end)
        some = [int(part) for part in range(first, last + 1) if new.per_part[part]]
        skip = start - int(ends[first] - new.per_part[first])
        yield Span(number * FILES, skip, end - start, {part: parts[part].path for part in some}, new.of_parts(some))
