"""Image bytes of many manifest rows: read concurrently through fsspec, returned in order, each with its own outcome."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config import AnnotateConfig
from pipeline.errors import ImageError, StorageError
from pipeline.images import parquet_reader
from pipeline.images.coalesce import PREFETCH_BYTES, Row, coalesce, is_table, span, span_bytes
from pipeline.images.parquet_reader import ColumnReader
from pipeline.images.prefetch import PrefetchingFile
from pipeline.images.row_reader import RowReader
from pipeline.sources.source import stored_column
from pipeline.storage.uris import without_secrets


@dataclass(frozen=True)
class Fetcher:
    """Fetches the images of manifest rows, `concurrency` at once. `column` is that of a Parquet table's image bytes, by name or `field_id`.

    Each image gets the reader's `timeout`. A request for several members of a .tar gets half of it; if it fails, each member is read
    on its own within the other half. Images of a Parquet table wait for the ranges of the file they are in, each of which gets all of it.
    """

    reader: RowReader
    column: str
    concurrency: int
    field_id: int | None = None

    @classmethod
    def of(cls, config: AnnotateConfig) -> "Fetcher":
        """Return the fetcher for a run's settings."""
        column = stored_column(config.input, config.column, config.storage_options)
        return cls(RowReader.of(config), column.name, config.fetch_concurrency, column.field_id)

    def fetch(self, rows: list[Row]) -> Iterator[tuple[Row, bytes | ImageError]]:
        """Return each row with its bytes or its failure, in order.

        In memory are at most 2 x `concurrency` images that are read on their own, PREFETCH_BYTES + 2 MAX_REQUEST_BYTES of .tar
        members that are read together, and what a `ColumnReader` holds. Raises StorageError, which is no image's failure, where the
        storage refuses the credentials.
        """
        pool = ThreadPoolExecutor(self.concurrency)
        pending: deque[tuple[list[Row], Future[Any]]] = deque()
        try:
            for batch in coalesce(rows, self.reader.max_bytes):
                pending.append((batch, pool.submit(self._read, batch)))
                while len(pending) >= 2 * self.concurrency or sum(span_bytes(batch) for batch, _ in pending) >= PREFETCH_BYTES:
                    yield from self._outcomes(*pending.popleft(), pool)
            while pending:
                yield from self._outcomes(*pending.popleft(), pool)
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, batch: list[Row]) -> bytes | ColumnReader:
        """Read an image, or several with the bytes between them, or open a Parquet table. Raises ImageError."""
        if is_table(batch[0]):
            return self._open_table(batch[0])
        if len(batch) > 1:
            return self.reader.read(*self.reader.connect(batch[0]), span(batch), self.reader.timeout / 2)
        return self.reader.read_image(batch[0], self.reader.timeout)

    def _outcomes(self, batch: list[Row], future: Future[Any], pool: Executor) -> Iterator[tuple[Row, bytes | ImageError]]:
        result = _result(future)
        if isinstance(result, ColumnReader):
            yield from zip(batch, self._table_values(result, batch, pool), strict=True)
        elif is_table(batch[0]) or len(batch) == 1:
            for row in batch:
                yield row, result
        elif isinstance(result, ImageError):  # it may not be the failure of each member
            retries = [(row, pool.submit(self.reader.read_image, row, self.reader.timeout / 2)) for row in batch]
            for row, retry in retries:
                yield row, _result(retry)
        else:
            start = batch[0]["position"]
            for row in batch:
                yield row, result[row["position"] - start : row["position"] - start + row["size"]]

    def _open_table(self, row: Row) -> ColumnReader:
        """Open the Parquet table of a row, or continue with the reader that this process used last. Raises ImageError."""
        fs, path = self.reader.connect(row)
        key = (type(fs), fs.storage_options, path, row["version"], self.column)
        if (last := parquet_reader.last_reader.take(key)) is not None:
            return last
        tail, size = self.reader.read_tail(fs, path, row["version"], parquet_reader.TAIL)
        try:
            return ColumnReader(PrefetchingFile(size, tail, self._ranges(row)), self.column, key, self.reader.max_bytes, self.field_id)
        except StorageError:
            raise
        except Exception as error:  # Arrow's, of a file that is broken: it fails these images
            raise self.reader.failure(error) from None

    def _ranges(self, row: Row) -> Callable[[int, int], bytes]:
        """Return a function that reads bytes [start, end) of a row's container. Raises ImageError, as that function does."""
        fs, path = self.reader.connect(row)
        return lambda start, end: self.reader.read(fs, path, row | {"position": start, "size": end - start}, self.reader.timeout)

    def _table_values(self, column: ColumnReader, batch: list[Row], pool: Executor) -> Iterator[bytes | ImageError]:
        for row, value in zip(batch, column.values([row["position"] for row in batch], pool, self._ranges(batch[0])), strict=True):
            yield self._path_value(row) if value is None and row.get("link") else self._table_value(value)
        parquet_reader.last_reader.keep(column)

    def _path_value(self, row: Row) -> bytes | ImageError:
        """Read the path of a table's row that has no bytes, as a URI of that table."""
        try:
            return self.reader.read_image(row | {"uri": row["link"], "container": None, "version": ""}, self.reader.timeout)
        except ImageError as error:
            return ImageError(error.status, f"the table's row has no bytes, only the path {without_secrets(row['link'])}: {error}")

    def _table_value(self, value: pa.Buffer | Exception | None) -> bytes | ImageError:
        if isinstance(value, Exception):
            return self.reader.failure(value)
        if value is None:
            return ImageError("missing", "the table's row has no bytes")
        if value.size == 0:
            return ImageError("not_an_image", "the table's row has no bytes")
        try:
            self.reader.check_size(value.size)
        except ImageError as error:
            return error
        return value.to_pybytes()


def _result(future: Future[Any]) -> Any:
    """Wait for a result, or the ImageError raised instead."""
    try:
        return future.result()
    except ImageError as error:
        return error
