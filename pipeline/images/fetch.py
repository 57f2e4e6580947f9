"""Image bytes through fsspec: many at once, within limits, asked for again where storage fails for now, each failure named."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import aiohttp
import fsspec
from botocore import exceptions as boto
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.local import LocalFileSystem

from pipeline.config import AnnotateConfig
from pipeline.errors import ImageError, StorageError, UserError
from pipeline.images import parquet_reader
from pipeline.images.coalesce import AHEAD, Row, is_table, length, pieces, span
from pipeline.images.parquet_reader import Ahead, Column
from pipeline.inputs.source import allowed_protocols
from pipeline.storage import client, filesystem, retry
from pipeline.storage.filesystem import Options, connect
from pipeline.storage.retry import Policy, ShortError
from pipeline.storage.ssrf import RefusedAddressError, WebClient, addresses_of
from pipeline.storage.uris import WEB, protocol, refusal, scrubbed, storage_of
from ugrie.text import one_line

CHANGED = "not the object that was listed any more; the next listing will have it"
TIMEOUTS = (TimeoutError, boto.ReadTimeoutError, boto.ConnectTimeoutError)
SHORT = (ShortError, aiohttp.ClientPayloadError, boto.IncompleteReadError, boto.ResponseStreamingError, boto.FlexibleChecksumError)
WEB_ATTEMPTS = 4  # of a table's links many are dead, and none is worth a minute


@dataclass(frozen=True)
class Fetcher:
    """Fetches the images of manifest rows. `input` and `column` are the source's, `protocols` those a URI may have.

    `timeout` are the seconds that an image may take with all its attempts, of which a stalled one is given up after a
    sixth and any after half. Before the second attempt it waits `first_wait` seconds at most; see `retry.Policy`. Storages
    without asyncio, such as local disks, can't be interrupted: there a single read may take longer. Where one request reads
    several members of a .tar, it has half of that time, and should it fail, each of them on its own has the other half. A
    Parquet table's images wait for the parts of the file that they lie in, each of which has the whole time.
    """

    input: str
    column: str
    options: Options = field(repr=False)
    protocols: frozenset[str]
    max_bytes: int
    timeout: float
    concurrency: int
    first_wait: float = 0.2

    @classmethod
    def of(cls, config: AnnotateConfig) -> "Fetcher":
        """As a run's settings have it."""
        return cls(
            input=config.input,
            column=config.column,
            options=config.storage_options,
            protocols=allowed_protocols(config.input, config.allow_protocols),
            max_bytes=config.max_bytes,
            timeout=config.fetch_timeout,
            concurrency=config.fetch_concurrency,
        )

    def fetch(self, rows: list[Row]) -> Iterator[tuple[Row, bytes | ImageError]]:
        """Each row with its bytes, or with what went wrong, in order.

        In memory are at most 2 x `concurrency` images of their own, AHEAD + 2 SPAN bytes of .tar spans, and what
        `parquet.Column` says of a table. Raises StorageError, which is no image's, where the storage refuses the credentials.
        """
        pool = ThreadPoolExecutor(self.concurrency)
        waiting: deque[tuple[list[Row], Future[Any]]] = deque()
        try:
            for piece in pieces(rows, self.max_bytes):
                waiting.append((piece, pool.submit(self._begin, piece)))
                while len(waiting) >= 2 * self.concurrency or sum(length(piece) for piece, _ in waiting) >= AHEAD:
                    yield from self._outcomes(*waiting.popleft(), pool)
            while waiting:
                yield from self._outcomes(*waiting.popleft(), pool)
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, piece: list[Row]) -> bytes | Column:
        """The bytes of an image, or of several and what lies between, or a table that is open. Raises ImageError."""
        if is_table(piece[0]):
            return self._open(piece[0])
        if len(piece) > 1:
            return self._read(*self._connect(piece[0]), span(piece), self.timeout / 2)
        return self.one(piece[0], self.timeout)

    def _outcomes(self, piece: list[Row], begun: Future[Any], pool: Executor) -> Iterator[tuple[Row, bytes | ImageError]]:
        found = _outcome(begun)
        if isinstance(found, Column):
            yield from zip(piece, self._values(found, piece, pool), strict=True)
        elif is_table(piece[0]) or len(piece) == 1:
            for row in piece:
                yield row, found
        elif isinstance(found, ImageError):  # perhaps not of all
            alone = [(row, pool.submit(self.one, row, self.timeout / 2)) for row in piece]
            for row, future in alone:
                yield row, _outcome(future)
        else:
            start = piece[0]["position"]
            for row in piece:
                yield row, found[row["position"] - start : row["position"] - start + row["size"]]

    def one(self, row: Row, seconds: float) -> bytes:
        """The bytes of one image that is no table's, within so many seconds. Raises ImageError."""
        self.check_size(row["size"])
        if not row["uri"]:
            raise ImageError("missing", "the table's row has no URI")
        if row["size"] == 0:
            raise ImageError("not_an_image", "the file is empty")
        if row["size"] is None and (reason := refusal(row["uri"], self.protocols)) is not None:  # what was listed is the store's own word
            raise ImageError("forbidden", reason)
        return self._read(*self._connect(row), row, seconds)

    def _connect(self, row: Row) -> tuple[fsspec.AbstractFileSystem, str]:
        """Where a row's bytes are. The storage options are the source's: any other storage is asked without them."""
        link = row.get("link") or row["uri"]
        try:
            if row["container"] is not None:
                return connect(self.input, self._own_options)[0], row["container"]
            names, place = self._own_storage
            ours = protocol(link) in names and storage_of(link) == place
            return connect(link, self._own_options if ours else self._options_of(link, {}))
        except (UserError, ValueError, TypeError) as error:  # a URI that its storage can't make sense of
            raise ImageError("unreadable", self._told(error)) from None

    @cached_property
    def _own_storage(self) -> tuple[set[str], str]:
        return filesystem.names(self.input), storage_of(self.input)

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
        return filesystem.for_fetching(uri, options, self.concurrency, self.timeout / 6)

    def _open(self, row: Row) -> Column:
        """The table that a row lies in. Raises ImageError."""
        fs, path = self._connect(row)
        key = (type(fs), fs.storage_options, path, row["version"], self.column)
        if (column := parquet_reader.kept(key)) is not None:
            return column
        etag = filesystem.etag(fs, row["version"])
        try:
            tail, size = client.ask(
                fs, path, self._policy(fs, self.timeout), lambda left: client.tail(fs, path, left, parquet_reader.TAIL, etag)
            )
            if filesystem.is_changed(fs, path, row["version"]):
                raise ImageError("changed", CHANGED)
            return Column(Ahead(size, tail, self._parts_of(row)), self.column, key)
        except StorageError:
            raise
        except Exception as error:  # as in _read: whatever the store or the file does, it is these images' failure
            raise self._failure(error) from None

    def _parts_of(self, row: Row) -> Callable[[int, int], bytes]:
        """What reads parts of the file that a row lies in."""
        fs, path = self._connect(row)
        return lambda start, end: self._read(fs, path, row | {"position": start, "size": end - start}, self.timeout)

    def _values(self, column: Column, piece: list[Row], pool: Executor) -> Iterator[bytes | ImageError]:
        for value in column.values([row["position"] for row in piece], pool, self._parts_of(piece[0])):
            if isinstance(value, Exception):
                yield self._failure(value)
            elif value is None:
                yield ImageError("missing", "the table's row has no bytes")
            elif value.size == 0:
                yield ImageError("not_an_image", "the table's row has no bytes")
            else:
                yield self._too_large(value.size) or value.to_pybytes()
        parquet_reader.keep(column)

    def check_size(self, size: int | None) -> None:
        if size is not None and (error := self._too_large(size)) is not None:
            raise error

    def _too_large(self, size: int) -> ImageError | None:
        return ImageError("too_large", f"{size} bytes, more than max_bytes = {self.max_bytes}") if size > self.max_bytes else None

    def _read(self, fs: fsspec.AbstractFileSystem, path: str, row: Row, seconds: float) -> bytes:
        """A row's bytes, which may be a part of a file that several images lie in. Raises ImageError."""
        size, whole = row["size"], row["container"] is None
        start = 0 if whole else row["position"]
        # Of a file of its own one byte more is asked for: it tells one that has grown, or without a listing one that is too large.
        end = start + (self.max_bytes if size is None else size) + whole
        etag = filesystem.etag(fs, row["version"])
        asked = 0

        def attempt(seconds: float) -> bytes:
            nonlocal asked
            asked += 1
            data = client.get(fs, path, seconds, start, end, etag)
            if size is not None and len(data) < size and not filesystem.is_changed(fs, path, row["version"]):
                raise ShortError(f"{len(data)} bytes came of {size}")
            return data

        try:
            if isinstance(fs, LocalFileSystem) and not (os.path.isfile(path) or os.path.isdir(path)) and os.path.exists(path):
                raise ImageError("not_an_image", "a device or a pipe, no file")
            data = client.ask(fs, path, self._policy(fs, seconds), attempt)
            if size is None:
                self.check_size(len(data))
            elif len(data) != size or filesystem.is_changed(fs, path, row["version"]):
                raise ImageError("changed", CHANGED)
            return data
        except StorageError:
            raise
        except Exception as error:  # storage clients raise kinds of their own; whichever it is, it is this image's failure
            raise self._failure(error, asked) from None

    def _policy(self, fs: fsspec.AbstractFileSystem, seconds: float) -> Policy:
        return Policy(seconds, self.first_wait, attempts=WEB_ATTEMPTS if isinstance(fs, HTTPFileSystem) else None)

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


def _outcome(future: Future[Any]) -> Any:
    try:
        return future.result()
    except ImageError as error:
        return error
