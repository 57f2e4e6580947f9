"""Image bytes through fsspec: many at once, within limits, each failure named."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
import fsspec.asyn
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ImageError, UserError
from pipeline.storage import Options, connect, protocol


@dataclass(frozen=True)
class Fetcher:
    """Fetches the images of manifest rows. `input` and `column` are the source's, `protocols` those a URI may have."""

    input: str
    column: str
    options: Options
    protocols: frozenset[str]
    max_bytes: int
    timeout: float
    concurrency: int

    def fetch(self, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes | ImageError]]:
        """Each row with its bytes, or with what went wrong, in order. A few more than are being fetched are held at once."""
        embedded = self._embedded(rows)
        with ThreadPoolExecutor(self.concurrency) as pool:
            waiting: list[tuple[dict[str, Any], Future[bytes]]] = []
            queue = iter(rows)
            while True:
                for row in queue:
                    waiting.append((row, pool.submit(self.one, row, embedded)))
                    if len(waiting) >= 2 * self.concurrency:
                        break
                if not waiting:
                    return
                row, future = waiting.pop(0)
                try:
                    yield row, future.result()
                except ImageError as error:
                    yield row, error

    def one(self, row: dict[str, Any], embedded: dict[int, bytes | ImageError | None]) -> bytes:
        """The bytes of one image. Raises ImageError."""
        self.check_size(row["size"])
        if not row["uri"]:
            raise ImageError("missing", "the table's row has no URI")
        if row["image_id"] in embedded:
            data = embedded[row["image_id"]]
            if isinstance(data, ImageError):
                raise data
            if not data:
                raise ImageError("missing" if data is None else "not_an_image", "the table's row has no bytes")
            self.check_size(len(data))
            return data
        if row["size"] == 0:
            raise ImageError("not_an_image", "the file is empty")
        if protocol(row["uri"]) not in self.protocols:
            allowed = ", ".join(sorted(self.protocols))
            raise ImageError(
                "forbidden", f"the table may point to {allowed}, not to {protocol(row['uri'])}://; allow it with --allow-protocols"
            )
        try:
            fs, path = self._connect(row)
        except UserError as error:
            raise ImageError("unreadable", str(error)) from None
        start = row["position"] if row["container"] is not None else 0
        # Without a listing the size is unknown: one byte more than allowed tells a file that is too large.
        end = start + (row["size"] if row["size"] is not None else self.max_bytes + 1)
        whole = row["container"] is None and row["size"] is not None
        data = self._read(fs, row["container"] or path, None if whole else start, None if whole else end)
        if row["size"] is None:
            self.check_size(len(data))
        elif len(data) < row["size"]:
            raise ImageError("truncated", f"{len(data)} bytes came of {row['size']}")
        return data

    def _connect(self, row: dict[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
        """Where a row's bytes are. The storage options are the source's: another kind of storage is asked without them."""
        if row["container"] is not None or protocol(row["uri"]) == protocol(self.input):
            return connect(row["uri"] if row["container"] is None else self.input, self.options)
        return connect(row["uri"], {})

    def _embedded(self, rows: list[dict[str, Any]]) -> dict[int, bytes | ImageError | None]:
        """The bytes of the rows that lie within Parquet tables, by image_id; each row group is read once."""
        found: dict[int, bytes | ImageError | None] = {}
        by_file: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["container"] is not None and row["container"].lower().endswith(".parquet"):
                by_file.setdefault(row["container"], []).append(row)
        for path, wanted in by_file.items():
            try:
                fs, _ = connect(self.input, self.options)
                with fs.open(path, "rb") as file:
                    found.update(self._rows(pq.ParquetFile(file), wanted))
            except Exception as error:  # as in _read: whatever the store or the file does, it is these images' failure
                found.update({row["image_id"]: ImageError("unreadable", f"{type(error).__name__}: {error}") for row in wanted})
        return found

    def _rows(self, parquet: pq.ParquetFile, wanted: list[dict[str, Any]]) -> Iterator[tuple[int, bytes | None]]:
        first, at = 0, {row["position"]: row["image_id"] for row in wanted}
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            inside = [position for position in at if first <= position < first + count]
            if inside:
                column = parquet.read_row_group(group, [self.column]).column(0).combine_chunks()
                if pa.types.is_struct(column.type):
                    column = column.field("bytes")
                for position in inside:
                    yield at[position], column[position - first].as_py()
            first += count

    def check_size(self, size: int | None) -> None:
        if size is not None and size > self.max_bytes:
            raise ImageError("too_large", f"{size} bytes, more than max_bytes = {self.max_bytes}")

    def _read(self, fs: fsspec.AbstractFileSystem, path: str, start: int | None, end: int | None) -> bytes:
        try:
            if fs.async_impl:
                return fsspec.asyn.sync(fs.loop, fs._cat_file, path, start=start, end=end, timeout=self.timeout)
            return fs.cat_file(path, start=start, end=end)
        except FileNotFoundError:
            raise ImageError("missing", "there is no such object") from None
        except PermissionError as error:
            raise ImageError("forbidden", f"access denied: {error}") from None
        except (TimeoutError, fsspec.exceptions.FSTimeoutError):
            raise ImageError("timeout", f"not read within {self.timeout:g} s") from None
        except IsADirectoryError:
            raise ImageError("not_an_image", "a folder") from None
        except Exception as error:  # storage clients raise kinds of their own; whichever it is, it is this image's failure
            raise ImageError("unreadable", f"{type(error).__name__}: {error}") from None
