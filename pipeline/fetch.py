"""Image bytes through fsspec: many at once, within limits, asked for again where storage fails for now, each failure named."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import aiohttp
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from botocore import exceptions as boto
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.local import LocalFileSystem

from pipeline import retry, storage
from pipeline.addresses import RefusedAddressError, WebClient, addresses_of
from pipeline.errors import ImageError, StorageError, UserError
from pipeline.retry import Policy, ShortError
from pipeline.storage import Options, connect
from pipeline.uris import WEB, protocol, refusal, scrubbed, storage_of
from ugrie.errors import one_line

CHANGED = "not the object that was listed any more; the next listing will have it"
TIMEOUTS = (TimeoutError, boto.ReadTimeoutError, boto.ConnectTimeoutError)
SHORT = (ShortError, aiohttp.ClientPayloadError, boto.IncompleteReadError, boto.ResponseStreamingError, boto.FlexibleChecksumError)
WEB_ATTEMPTS = 4  # of a table's links many are dead, and none is worth a minute


@dataclass(frozen=True)
class Fetcher:
    """Fetches the images of manifest rows. `input` and `column` are the source's, `protocols` those a URI may have.

    `timeout` are the seconds that an image may take with all its attempts, of which a stalled one is given up after a
    sixth and any after half. Before the second attempt it waits `first_wait` seconds at most; see `retry.Policy`. Storages
    without asyncio, such as local disks, can't be interrupted: there a single read may take longer.
    """

    input: str
    column: str
    options: Options = field(repr=False)
    protocols: frozenset[str]
    max_bytes: int
    timeout: float
    concurrency: int
    first_wait: float = 0.2

    def fetch(self, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes | ImageError]]:
        """Each row with its bytes, or with what went wrong, in order. A few more than are being fetched are held at once.

        Raises StorageError, which is no image's, where the storage refuses the credentials.
        """
        embedded = self._embedded(rows)
        pool = ThreadPoolExecutor(self.concurrency)
        try:
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
        finally:
            pool.shutdown(cancel_futures=True)

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
        if row["size"] is None and (reason := refusal(row["uri"], self.protocols)) is not None:  # what was listed is the store's own word
            raise ImageError("forbidden", reason)
        try:
            fs, path = self._connect(row)
        except (UserError, ValueError, TypeError) as error:  # a URI that its storage can't make sense of
            raise ImageError("unreadable", self._told(error)) from None
        return self._read(fs, path, row)

    def _connect(self, row: dict[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
        """Where a row's bytes are. The storage options are the source's: any other storage is asked without them."""
        link = row.get("link") or row["uri"]
        if row["container"] is not None:
            return connect(self.input, self._own_options)[0], row["container"]
        names, place = self._own_storage
        ours = protocol(link) in names and storage_of(link) == place
        return connect(link, self._own_options if ours else self._options_of(link, {}))

    @cached_property
    def _own_storage(self) -> tuple[set[str], str]:
        return storage.names(self.input), storage_of(self.input)

    @cached_property
    def _own_options(self) -> Options:
        return self._options_of(self.input, self.options)

    @cached_property
    def _web(self) -> WebClient:
        trusted = addresses_of(self.input) if protocol(self.input) in WEB else ()
        return WebClient(trusted, self.concurrency, self.timeout / 6)

    def _options_of(self, uri: str, options: Options) -> Options:
        if protocol(uri) in WEB:
            return options | {"get_client": self._web}
        return storage.for_fetching(uri, options, self.concurrency, self.timeout / 6)

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
                info = storage.listed(fs, path, lambda fs=fs, path=path: fs.info(path))  # type: ignore[misc]
                if storage.is_changed(fs, path, wanted[0]["version"], info):
                    raise ImageError("changed", CHANGED)
                with storage.open_file(fs, path, info) as file:
                    found.update(self._rows(pq.ParquetFile(file), wanted))
            except StorageError:
                raise
            except Exception as error:  # as in _read: whatever the store or the file does, it is these images' failure
                failure = self._failure(error)
                found.update({row["image_id"]: failure for row in wanted})
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

    def _read(self, fs: fsspec.AbstractFileSystem, path: str, row: dict[str, Any]) -> bytes:
        size, whole = row["size"], row["container"] is None
        start = 0 if whole else row["position"]
        # Of a file of its own one byte more is asked for: it tells one that has grown, or without a listing one that is too large.
        end = start + (self.max_bytes if size is None else size) + whole
        etag = storage.etag(fs, row["version"])
        asked = 0

        def attempt(seconds: float) -> bytes:
            nonlocal asked
            asked += 1
            data = storage.get(fs, path, seconds, start, end, etag)
            if size is not None and len(data) < size and not storage.is_changed(fs, path, row["version"]):
                raise ShortError(f"{len(data)} bytes came of {size}")
            return data

        web = isinstance(fs, HTTPFileSystem)
        policy = Policy(self.timeout, self.first_wait, attempts=WEB_ATTEMPTS if web else None)
        try:
            if isinstance(fs, LocalFileSystem) and not (os.path.isfile(path) or os.path.isdir(path)) and os.path.exists(path):
                raise ImageError("not_an_image", "a device or a pipe, no file")
            data = storage.ask(fs, path, policy, attempt)
            if size is None:
                self.check_size(len(data))
            elif len(data) != size or storage.is_changed(fs, path, row["version"]):
                raise ImageError("changed", CHANGED)
            return data
        except StorageError:
            raise
        except Exception as error:  # storage clients raise kinds of their own; whichever it is, it is this image's failure
            raise self._failure(error, asked) from None

    def _failure(self, error: Exception, asked: int = 1) -> ImageError:
        """What an image's row says of an error, the last of so many."""
        times = f", asked {asked} times" if asked > 1 else ""
        if isinstance(error, ImageError):
            return error
        if (refused := retry.cause(error, RefusedAddressError)) is not None:
            return ImageError("forbidden", str(refused))
        status = retry.http_status(error)
        if isinstance(error, FileNotFoundError) or status == 410:
            return ImageError("missing", "there is no such object")
        if isinstance(error, PermissionError) or status in (401, 403):
            return ImageError("forbidden", f"access denied: {self._told(error)}")
        if status in (412, 416):
            return ImageError("changed", CHANGED)
        if isinstance(error, TIMEOUTS):
            return ImageError("timeout", f"not read within {self.timeout:g} s{times}")
        if isinstance(error, SHORT):
            short = self._told(error) if isinstance(error, ShortError) else "the answer was cut off"
            return ImageError("truncated", f"{short}{times}")
        if isinstance(error, IsADirectoryError):
            return ImageError("not_an_image", "a folder")
        return ImageError("unreadable", f"{type(error).__name__}: {self._told(error)}{times}")

    def _told(self, error: Exception) -> str:
        """What a storage client says, as it may stand in a row."""
        return one_line(scrubbed(str(error), self.options))
