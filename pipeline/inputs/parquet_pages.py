"""Sizes of a Parquet column's pages, checked before Arrow unpacks them: a few kilobytes can unpack to gigabytes.

A column of a row group is a sequence of pages, maybe a dictionary first. Each begins with a header in Thrift's compact protocol, which
states its size (https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift). Arrow reads a page only after its
header, so a file that looks at each header that passes can prevent the rest.
"""

from collections.abc import Iterator, Sequence
from io import SEEK_END, SEEK_SET, RawIOBase
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

MAX_HEADER = 16 * 2**20  # bytes, as in Arrow; it may hold the smallest and the largest value
DICTIONARY = 2  # of PageType
DELTA_BYTE_ARRAY = 7  # of Encoding: a value repeats the beginning of the one before
PADDING = 100  # bytes by which old writers state a column too short, as in Arrow
VALUE_BYTES = 8  # that a value of a list takes at least
FIXED = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE")  # physical types whose values are all of one size
FEWER = 64  # by which fewer rows are read at once, where they may take too much memory


class PageTooLargeError(ValueError):
    """A page would take too much memory. The message says how much; of values that repeat, as many `rows` could be read at once."""

    def __init__(self, message: str, rows: int | None = None):
        super().__init__(message)
        self.rows = rows


class _LimitedFile(RawIOBase):
    """A file whose reads are limited: what may be held of it is `most` bytes."""

    def __init__(self, file: IO[bytes] | RawIOBase, most: int):
        super().__init__()
        self._file, self._most = file, most
        self.size = file.seek(0, SEEK_END)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        return self._file.seek(offset, whence)


class CheckedPages(_LimitedFile):
    """A Parquet file that ends before a page with which the column that is read would take much more memory than `most` bytes.

    A page that is not packed, or to less than half, may be larger: whoever made it had to store its bytes.
    """

    def __init__(self, file: IO[bytes] | RawIOBase, most: int):
        super().__init__(file, most)
        self._header, self._end, self._rows = 0, 0, 1  # where the next header begins, the column ends, and the rows read at once
        self._is_first, self._start = False, b""  # and the part of a header that was read already
        self.unpacked = 0  # bytes of the pages since `next_batch`
        self._has_lists = False
        self.error: Exception | None = None  # what is wrong with the page at `_header`

    def read(self, size: int = -1) -> Any:
        position = self._file.tell()
        data = self._file.read(size)
        try:
            self._check(position, memoryview(data))
        except (PageTooLargeError, pa.ArrowInvalid) as error:
            if self.error is None or position <= self._header:  # later reads in the same page have no error of their own
                self.error = error
            self._start = b""
            return data[: max(self._header - position, 0)]
        return data

    def begin(self, start: int, end: int, rows: int, has_lists: bool = False) -> None:
        """Check the column in bytes [start, end), of which so many rows are read at once; with `has_lists` a row may have many values."""
        self._header, self._end, self._rows, self._is_first, self._start = start, end, rows, True, b""
        self.error, self.unpacked, self._has_lists = None, 0, has_lists

    def next_batch(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        """Return the next of the batches that Arrow reads from this file, or None. Raises what was wrong with the pages of this one."""
        return _next_batch([self], batches)

    def _check(self, position: int, data: memoryview) -> None:
        """Check the headers in what is read at `position`."""
        end = min(position + len(data), self._end)
        while position < end and (at := self._header + len(self._start)) < end:
            if at < position:
                raise pa.ArrowInvalid("the pages of a column are not where its footer says")
            header = data[at - position :]
            if self._start:
                header = memoryview(self._start + bytes(header[:MAX_HEADER]))
            try:
                page, length = _read_struct(header, 0)
            except IndexError:  # the rest of it is read next
                self._start = bytes(header[: MAX_HEADER + 1])
                if len(self._start) > MAX_HEADER:
                    raise pa.ArrowInvalid("a page's header is too long") from None
                return
            except RecursionError:
                raise pa.ArrowInvalid("a page's header is broken") from None
            self._check_page(page)
            if self._header + length + page[3] > self._end + PADDING:  # Arrow would reserve the memory before it reads
                raise pa.ArrowInvalid("a page is larger than its column")
            self.error = None  # it may have been too large only beside others
            self._header, self._start, self._is_first = self._header + length + page[3], b"", False

    def _check_page(self, page: dict[int, Any]) -> None:
        kind, unpacked, packed = (page.get(field, -1) for field in (1, 2, 3))
        details = page.get(5, page.get(8, {}))  # of data pages, version 1 or 2
        if not all(isinstance(number, int) and number >= 0 for number in (kind, unpacked, packed)) or not isinstance(details, dict):
            raise pa.ArrowInvalid("a page's header is broken")
        if kind == DICTIONARY and not self._is_first:
            raise pa.ArrowInvalid("a column has a dictionary after its first page")
        values = details.get(1)
        if self._has_lists and kind != DICTIONARY and isinstance(values, int) and VALUE_BYTES * values > self._most:
            raise PageTooLargeError(f"page of {packed:,} bytes holds {values:,} values, more than may be held")
        repeats, rows = kind == DICTIONARY or details.get(4 if 8 in page else 2) == DELTA_BYTE_ARRAY, None
        if self._rows > 1 and repeats:
            rows = self._most // max(unpacked, 1)
            unpacked *= self._rows
        elif unpacked <= 2 * packed:
            return
        self.unpacked = unpacked if self._rows == 1 else self.unpacked + unpacked
        if self.unpacked > self._most:
            raise PageTooLargeError(f"page of {packed:,} bytes unpacks to {page[2]:,}, more than may be held ({self._most:,})", rows)


class CheckedColumns(_LimitedFile):
    """A Parquet file of which several columns are read together, each as `CheckedPages` limits it."""

    def __init__(self, file: IO[bytes] | RawIOBase, most: int):
        super().__init__(file, most)
        self._columns: dict[tuple[int, int], CheckedPages] = {}  # by where each begins and ends

    def read(self, size: int = -1) -> Any:
        position = self._file.tell()
        return next((pages for (start, end), pages in self._columns.items() if start <= position < end), self._file).read(size)

    def begin(self, parquet: pq.ParquetFile, group: int, columns: Sequence[int], rows: int) -> None:
        """Check these columns of a row group, of which so many rows are read at once."""
        self._columns, last = {}, 0
        for place, index in sorted((chunk_range(parquet.metadata, group, index, self.size), index) for index in columns):
            if place[0] < last:
                raise pa.ArrowInvalid("the pages of two columns are in one place")
            column, last = parquet.schema.column(index), place[1]
            pages = self._columns[place] = CheckedPages(self._file, self._most)
            # What repeats is of few bytes, unless it is text: it may be read whole.
            pages.begin(*place, 1 if column.physical_type in FIXED else rows, column.max_repetition_level > 0)

    def next_batch(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        """Return the next of the batches that Arrow reads from this file, or None. Raises what was wrong with the pages of this one."""
        return _next_batch(list(self._columns.values()), batches)


def _next_batch(columns: Sequence[CheckedPages], batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    for pages in columns:
        pages.unpacked = 0
    try:
        batch = next(batches, None)
    except (pa.ArrowException, OSError):  # the file ended before what is wrong
        if errors := [pages.error for pages in columns if pages.error is not None]:
            raise errors[0] from None
        raise
    if not batch and (errors := [pages.error for pages in columns if pages.error is not None]):
        raise errors[0]
    return batch


def column_index(parquet: pq.ParquetFile, path: str) -> int:
    """Return the index of the column with a path in the schema, such as `image.bytes`."""
    return next(i for i in range(parquet.metadata.num_columns) if parquet.schema.column(i).path == path)


def chunk_range(metadata: pq.FileMetaData, group: int, column: int, size: int) -> tuple[int, int]:
    """Return where a column's bytes in a row group of a file of `size` bytes start and end."""
    chunk = metadata.row_group(group).column(column)
    start = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
    return max(start, 0), min(start + chunk.total_compressed_size, size)


def leaf_columns(parquet: pq.ParquetFile, path: str) -> list[int]:
    """Return the indices of the columns of which a column of the table is made, such as those of a struct's fields."""
    paths = (parquet.schema.column(i).path for i in range(parquet.metadata.num_columns))
    return [i for i, each in enumerate(paths) if each == path or each.startswith(f"{path}.")]


def column_batches(parquet: pq.ParquetFile, pages: CheckedColumns, group: int, paths: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Return columns of a row group, at most `rows` rows at once: fewer where these might take too much memory.

    `paths` are the columns' in the schema, such as `image.path`. Raises PageTooLargeError where a single page is too large.
    """
    columns = [index for path in paths for index in leaf_columns(parquet, path)]
    total, done = parquet.metadata.row_group(group).num_rows, 0
    while done < total:
        pages.begin(parquet, group, columns, rows)
        batches, position = parquet.iter_batches(rows, [group], list(paths), use_threads=False), 0
        try:
            while batch := pages.next_batch(batches):
                position += len(batch)
                if position > done:  # the rest was returned before
                    yield batch[max(len(batch) - (position - done), 0) :]
                    done = position
            if done < total:
                raise pa.ArrowInvalid(f"row group {group} has fewer rows than it should have")
        except PageTooLargeError as error:
            if rows == 1:
                raise
            fewer = rows // FEWER if rows > FEWER else rows // 2
            rows = max(fewer if error.rows is None else min(fewer, error.rows), 1)


def values_at(batch: pa.RecordBatch, path: str) -> pa.Array:
    """Return a column of a batch by its path in the schema. Where a struct is missing, so are its fields."""
    if path in batch.schema.names:
        return batch.column(path)
    name, *fields = path.split(".")
    values = batch.column(name)
    for field in fields:
        values = values.field(field)
    return values


def _read_struct(data: memoryview, at: int) -> tuple[dict[int, Any], int]:
    """Return a Thrift struct's fields by their numbers, and where it ends. Raises IndexError where the data ends before."""
    fields, number = {}, 0
    while byte := data[at]:
        at += 1
        if byte >> 4:
            number += byte >> 4
        else:
            number, at = _read_integer(data, at)
        fields[number], at = _read_value(data, at, byte & 15)
    return fields, at + 1


def _read_value(data: memoryview, at: int, kind: int) -> tuple[Any, int]:
    match kind:
        case 1 | 2:  # true, false
            return kind == 1, at
        case 3:
            return data[at], at + 1
        case 4 | 5 | 6:
            return _read_integer(data, at)
        case 7:
            return None, at + 8
        case 8:  # bytes: the smallest or the largest value
            length, at = _read_varint(data, at)
            if at + length > len(data):
                raise IndexError
            return None, at + length
        case 12:
            return _read_struct(data, at)
    raise pa.ArrowInvalid("a page's header is broken")


def _read_integer(data: memoryview, at: int) -> tuple[int, int]:
    number, at = _read_varint(data, at)
    return number >> 1 ^ -(number & 1), at


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while (byte := data[at]) & 128:
        number |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if shift > 63:
            raise pa.ArrowInvalid("a page's header is broken")
    return number | byte << shift, at + 1
