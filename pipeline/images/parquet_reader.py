"""Image bytes in a column of a Parquet file: page by page, in the order of the rows, asked for before they are needed.

Arrow's reader can go through a row group page by page. It then asks for one part of the file after another, so the parts
that it is going to ask for are fetched ahead of it here. Nor can it skip pages: the way to a row leads through its row group
from the beginning, and what Arrow writes is often one page. So that the next block of a row group needn't go that way again,
a process keeps the reader that it used last, where it stands.
"""

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from itertools import accumulate, islice
from math import ceil
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StorageError
from pipeline.images.coalesce import AHEAD, SPAN

TAIL = 2**16  # bytes at the end of a file that Arrow begins with, and in which the footer mostly lies
BUFFER = 2**16  # bytes that Arrow asks for at once, unless a page has more
BATCH = 64  # rows that are decoded at once, at most
_kept: list["Column"] = []
_keeping = threading.Lock()


@dataclass
class Part:
    """Bytes [start, end) of a file, and the request for them, if there is one yet."""

    start: int
    end: int
    coming: Future[bytes] | None = None


class Ahead(RawIOBase):
    """A file of `size` bytes as Arrow's reader sees it: its `tail`, and of the rest what `get(start, end)` gives.

    At most AHEAD bytes are fetched ahead, beside the part that is in use, of SPAN bytes or as many as the reader wants at once.
    """

    def __init__(self, size: int, tail: bytes, get: Callable[[int, int], bytes]):
        super().__init__()
        self.size = size
        self.get = get
        self._at = 0
        self._chunks: list[tuple[int, int]] = []
        self._parts: deque[Part] = deque()
        self._held = (size - len(tail), memoryview(tail))  # the part that is in use: where it begins, and its bytes
        self._pool: Executor | None = None

    def expect(self, chunks: list[tuple[int, int, int]], pool: Executor, get: Callable[[int, int], bytes], goes_on: bool) -> None:
        """The reader is going to read `chunks` = [start, end), in that order and each from its start to somewhere near `likely`.

        They are (start, likely, end). If it `goes_on`, the first one's beginning is read or on its way.
        """
        self._pool, self.get = pool, get
        self._chunks = [(start, end) for start, _, end in chunks]
        known = self._parts[-1].end if goes_on and self._parts else self._held[0] + len(self._held[1])
        if not goes_on:
            self._parts.clear()
        for i, (start, likely, end) in enumerate(chunks):
            first = max(start, known) if start >= self._held[0] or (goes_on and i == 0) else start
            self._parts += [Part(at, min(at + SPAN, end)) for at in range(first, likely, SPAN)]
        self._ask()

    def _ask(self) -> None:
        if self._pool is not None:
            for part in islice(self._parts, AHEAD // SPAN):
                if part.coming is None or part.coming.cancelled():
                    part.coming = self._pool.submit(self.get, part.start, part.end)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._at = offset + {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int = -1) -> memoryview:  # any buffer will do for Arrow, and this is no copy
        end = self.size if size < 0 else min(self._at + size, self.size)
        data = self._some(self._at, end)
        if len(data) < end - self._at:
            whole, filled = memoryview(bytearray(end - self._at)), 0
            while True:
                whole[filled : filled + len(data)] = data
                filled += len(data)
                if filled == len(whole):
                    break
                data = self._some(self._at + filled, end)
            data = whole
        self._at += len(data)
        return data

    def _some(self, at: int, end: int) -> memoryview:
        """The first of bytes [at, end), as many as lie together here."""
        if at >= end:
            return memoryview(b"")
        start, held = self._held
        if not start <= at < start + len(held):
            if not any(part.start == at for part in self._parts):  # the footer, or more of a chunk than seemed likely
                last = next((last for first, last in self._chunks if first <= at < last), end)
                last = max(end, min(at + SPAN, last))
                self._parts.extendleft(reversed([Part(start, min(start + SPAN, last)) for start in range(at, last, SPAN)]))
            while self._parts[0].start != at:
                self._parts.popleft()
            self._ask()
            part = self._parts.popleft()
            data = self.get(part.start, part.end) if part.coming is None else part.coming.result()
            self._ask()
            start, held = self._held = (at, memoryview(data))
        return held[at - start : end - start]


class Column:
    """The image bytes of a file's rows, read on from where the last block ended. `key` says what it is a column of.

    In memory are two pages, compressed and not, at most 64 rows, and what `Ahead` says; between blocks too.
    """

    def __init__(self, file: Ahead, name: str, key: tuple[Any, ...] = ()):
        self.key = key
        self._file = file
        self._parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER)
        self._names, kind = [name], self._parquet.schema_arrow.field(name).type
        while pa.types.is_struct(kind):  # of the bytes and the path, in which Hugging Face datasets keep images
            self._names.append("bytes")
            kind = kind.field("bytes").type
        self._path = ".".join(self._names)
        metadata, schema = self._parquet.metadata, self._parquet.schema
        self._number = next(i for i in range(metadata.num_columns) if schema.column(i).path == self._path)
        counts = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._starts = list(accumulate(counts, initial=0))  # the first row of each group, and how many rows there are
        self._group, self._first, self._batch = -1, 0, pa.array([], kind)
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def values(self, rows: list[int], pool: Executor, get: Callable[[int, int], bytes]) -> Iterator[pa.Buffer | Exception | None]:
        """The bytes in each of these rows, None where there are none, or what went wrong: it fails what follows in the row group.

        A group is read once where the rows ascend. Raises StorageError.
        """
        last = {self._group_of(row): row for row in rows}
        goes_on = self._group >= 0 and self._group == self._group_of(rows[0]) and self._first <= rows[0]
        self._file.expect([self._chunk(group, row) for group, row in last.items() if group >= 0], pool, get, goes_on)
        broken: dict[int, Exception] = {}
        for row in rows:
            group = self._group_of(row)
            value: pa.Buffer | Exception | None = broken.get(group)
            if value is None:
                try:
                    value = self._value(group, row)
                except StorageError:
                    raise
                except Exception as error:  # Arrow's, or the storage's below it
                    value = broken[group] = error
                    self._group = -1
            yield value

    def _group_of(self, row: int) -> int:
        """The number of a row's group, or -1."""
        return bisect_right(self._starts, row) - 1 if row < self._starts[-1] else -1

    def _chunk(self, group: int, last: int) -> tuple[int, int, int]:
        """Where the column's bytes in a group begin, where row `last` is likely to end if all are of one size, and where they end."""
        chunk = self._parquet.metadata.row_group(group).column(self._number)
        start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
        share = (last + 1 - self._starts[group]) / (self._starts[group + 1] - self._starts[group])
        start, end = max(start, 0), min(start + chunk.total_compressed_size, self._file.size)
        return start, start + ceil((end - start) * share), end

    def _value(self, group: int, row: int) -> pa.Buffer | None:
        if group < 0:
            raise pa.ArrowInvalid(f"it has {self._starts[-1]} rows")
        if group != self._group or row < self._first:
            metadata = self._parquet.metadata.row_group(group)
            most = SPAN * metadata.num_rows // max(metadata.column(self._number).total_uncompressed_size, 1)
            self._batches = self._parquet.iter_batches(min(max(most, 1), BATCH), [group], [self._path], use_threads=False)
            self._group, self._first, self._batch = group, self._starts[group], self._batch[:0]
        while row >= self._first + len(self._batch):
            if (batch := next(self._batches, None)) is None:
                raise pa.ArrowInvalid(f"row group {group} has fewer rows than it should have")
            self._first += len(self._batch)
            self._batch = batch.column(self._names[0])
            for name in self._names[1:]:
                self._batch = self._batch.field(name)
        value = self._batch[row - self._first]
        return value.as_buffer() if value.is_valid else None


def kept(key: tuple[Any, ...]) -> Column | None:
    """The column that this process read last, if it is that one. It is the caller's then."""
    with _keeping:
        return _kept.pop() if _kept and _kept[0].key == key else None


def keep(column: Column) -> None:
    with _keeping:
        _kept[:] = [column]
