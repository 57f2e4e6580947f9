"""Image bytes in a column of a Parquet file, read page by page in the order of the rows, and requested ahead.

Arrow reads a row group page by page, but requests one range of the file after another, so `PrefetchingFile` requests them ahead of it.
Arrow can't skip pages either: to reach a row it reads the row group from its first, and Arrow itself often writes a row group as one
page. So that the next block need not read the group from its beginning again, a process keeps its last reader (`last_reader`).
"""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import accumulate
from math import ceil
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StorageError
from pipeline.images.coalesce import MAX_REQUEST_BYTES
from pipeline.images.prefetch import Chunk, PrefetchingFile
from pipeline.inputs.parquet_pages import CheckedPages, PageTooLargeError, chunk_range, column_index
from pipeline.sources.data_file import field_id_of

TAIL = 2**16  # bytes at the end of a file: what Arrow reads first, and where the footer mostly fits
BUFFER = 2**16  # bytes that Arrow reads at once, unless a page is larger
MAX_PAGE = 256 * 2**20  # bytes that pages may take, unless an image may be larger: writers put many images into a page
BATCH = 64  # rows decoded at once, at most


class ColumnReader:
    """Reads the image bytes in a column of a Parquet file, and keeps its position between calls. A field of `field_id` is the column.

    `key` identifies the file, its version and the column. In memory, between calls too, are two pages, compressed and not, at most
    BATCH rows, and what `PrefetchingFile` holds. What pages unpack to is limited to `max_bytes` or MAX_PAGE (see `CheckedPages`).
    """

    def __init__(self, file: PrefetchingFile, column: str, key: tuple[Any, ...] = (), max_bytes: int = 0, field_id: int | None = None):
        self.key = key
        self._file = file
        self._pages = CheckedPages(file, max(MAX_PAGE, max_bytes + 2**20))
        self._parquet = pq.ParquetFile(self._pages, pre_buffer=False, buffer_size=BUFFER)
        schema = self._parquet.schema_arrow
        column = next((field.name for field in schema if field_id is not None and field_id_of(field) == field_id), column)
        self._fields, kind = [column], schema.field(column).type
        while pa.types.is_struct(kind):  # Hugging Face datasets keep images as a struct of `bytes` and `path`
            self._fields.append("bytes")
            kind = kind.field("bytes").type
        self._path = ".".join(self._fields)
        metadata = self._parquet.metadata
        self._column_index = column_index(self._parquet, self._path)
        row_counts = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._group_starts = list(accumulate(row_counts, initial=0))  # the first row of each row group, and the number of rows
        # The position: the row group that is being read, its remaining batches, the current batch, its first row, and its most rows.
        self._group, self._batch, self._batch_start, self._batch_rows = -1, pa.array([], kind), 0, BATCH
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def values(self, rows: list[int], pool: Executor, get: Callable[[int, int], bytes]) -> Iterator[pa.Buffer | Exception | None]:
        """Return the bytes in each of these rows, None where there are none, or the error that prevents reading them.

        After an error, all later rows of its row group have that error. A row group is read once if `rows` ascend.
        `pool` and `get(start, end)` request ranges of the file ahead. Raises StorageError.
        """
        last_rows = {self._group_of(row): row for row in rows}
        resumes = self._group >= 0 and self._group == self._group_of(rows[0]) and self._batch_start <= rows[0]
        self._file.prefetch([self._chunk(group, row) for group, row in last_rows.items() if group >= 0], pool, get, resumes)
        errors: dict[int, Exception] = {}
        for row in rows:
            group = self._group_of(row)
            value: pa.Buffer | Exception | None = errors.get(group)
            if value is None:
                try:
                    value = self._value(group, row)
                except StorageError:
                    raise
                except Exception as error:  # Arrow's, or the storage client's
                    value = errors[group] = error
                    self._group = -1
            yield value

    def _group_of(self, row: int) -> int:
        """Return the index of a row's group, or -1 if the file has no such row."""
        return bisect_right(self._group_starts, row) - 1 if row < self._group_starts[-1] else -1

    def _chunk(self, group: int, last_row: int) -> Chunk:
        """Return the column's bytes in a row group. If all rows are of one size, `last_row` ends at `likely_end`."""
        start, end = chunk_range(self._parquet.metadata, group, self._column_index, self._file.size)
        first_row, next_group = self._group_starts[group : group + 2]
        return Chunk(start, start + ceil((end - start) * (last_row + 1 - first_row) / (next_group - first_row)), end)

    def _value(self, group: int, row: int) -> pa.Buffer | None:
        if group < 0:
            raise pa.ArrowInvalid(f"it has {self._group_starts[-1]} rows")
        if group != self._group or row < self._batch_start:
            self._start_group(group)
        while row >= self._batch_start + len(self._batch):
            try:
                self._next_batch()
            except PageTooLargeError:
                if self._batch_rows == 1:
                    raise
                self._start_group(group, 1)
        value = self._batch[row - self._batch_start]
        return value.as_buffer() if value.is_valid else None

    def _start_group(self, group: int, most_rows: int | None = None) -> None:
        """Move to the first row of a row group. Its batches hold about MAX_REQUEST_BYTES, or `most_rows` (BATCH) if those are less."""
        metadata = self._parquet.metadata.row_group(group)
        column = metadata.column(self._column_index)
        rows = MAX_REQUEST_BYTES * metadata.num_rows // max(column.total_uncompressed_size, 1)
        self._batch_rows = 1 if "DELTA_BYTE_ARRAY" in column.encodings else min(max(rows, 1), most_rows or BATCH)
        self._pages.begin(*chunk_range(self._parquet.metadata, group, self._column_index, self._file.size), self._batch_rows)
        self._batches = self._parquet.iter_batches(self._batch_rows, [group], [self._path], use_threads=False)
        self._group, self._batch_start, self._batch = group, self._group_starts[group], self._batch[:0]

    def _next_batch(self) -> None:
        batch = self._pages.next_batch(self._batches)
        if batch is None:
            raise pa.ArrowInvalid(f"row group {self._group} has fewer rows than it should have")
        self._batch_start += len(self._batch)
        self._batch = batch.column(self._fields[0])
        for name in self._fields[1:]:
            self._batch = self._batch.field(name)


class LastReader:
    """Keeps the reader that was used last. Taking it removes it, so that no two threads read with it."""

    def __init__(self) -> None:
        self._reader: ColumnReader | None = None
        self._lock = threading.Lock()

    def take(self, key: tuple[Any, ...]) -> ColumnReader | None:
        """Return the reader if it has this key, else None and keep it."""
        with self._lock:
            if self._reader is None or self._reader.key != key:
                return None
            reader, self._reader = self._reader, None
            return reader

    def keep(self, reader: ColumnReader) -> None:
        with self._lock:
            self._reader = reader


last_reader = LastReader()  # of this process
