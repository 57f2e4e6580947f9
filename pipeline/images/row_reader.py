"""Bytes of one manifest row, read from storage within limits of size and time, with retries."""

import os
from dataclasses import dataclass, field
from functools import cached_property

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.config import AnnotateConfig
from pipeline.errors import ImageError, StorageError, UserError
from pipeline.images.coalesce import Row
from pipeline.images.failure import CHANGED, image_error
from pipeline.sources.source import allowed_protocols, storage_of
from pipeline.storage import client, filesystem
from pipeline.storage.filesystem import Options, connect
from pipeline.storage.libraries import is_http
from pipeline.storage.retry import Policy, ShortError
from pipeline.storage.ssrf import USER_AGENT, WebClient, addresses_of
from pipeline.storage.uris import WEB, protocol, public_message, storage_key, why_refused

WEB_ATTEMPTS = 4  # many links of a table are dead, and none is worth a minute


@dataclass(frozen=True)
class RowReader:
    """Reads images of the source `input`. URIs of a table may have the given `protocols`.

    `timeout` is the total deadline of an image in seconds. A single attempt gets at most half of it, and is given up after a sixth
    without progress. The first retry waits at most `first_wait` seconds; see `retry.Policy`. Storages without asyncio, such as local
    disks, can't be interrupted: a single read may take longer there. `connections` is the number of images read at once.
    """

    input: str
    options: Options = field(repr=False)
    protocols: frozenset[str]
    max_bytes: int
    timeout: float
    connections: int
    first_wait: float = 0.2
    user_agent: str = USER_AGENT

    @classmethod
    def of(cls, config: AnnotateConfig) -> "RowReader":
        """Return the reader for a run's settings."""
        return cls(
            input=storage_of(config.input),
            options=config.storage_options,
            protocols=allowed_protocols(config.input, config.allow_protocols),
            max_bytes=config.max_bytes,
            timeout=config.fetch_timeout,
            connections=config.fetch_concurrency,
            user_agent=config.user_agent,
        )

    def read_image(self, row: Row, seconds: float) -> bytes:
        """Read an image that is not in a Parquet table, within a deadline in seconds. Raises ImageError."""
        self.check_size(row["size"])
        if not row["uri"]:
            raise ImageError("missing", "the table's row has no URI")
        if row["size"] == 0:
            raise ImageError("not_an_image", "the file is empty")
        is_listed = row["size"] is not None  # by the storage itself, so that its URI needs no check
        if not is_listed and (reason := why_refused(row["uri"], self.protocols)) is not None:
            raise ImageError("forbidden", reason)
        return self.read(*self.connect(row), row, seconds)

    def check_size(self, size: int | None) -> None:
        """Raise ImageError (too_large) for an image of more than `max_bytes`."""
        if size is not None and size > self.max_bytes:
            raise ImageError("too_large", f"{size} bytes, more than max_bytes = {self.max_bytes}")

    def connect(self, row: Row) -> tuple[fsspec.AbstractFileSystem, str]:
        """Return the file system and path of a row's file. Only the source's own storage gets the storage options. Raises ImageError."""
        link = row.get("link") or row["uri"]
        try:
            if row["container"] is not None:
                return connect(self.input, self._own_options)[0], row["container"]
            own_protocols, own_storage = self._own_storage
            is_own = protocol(link) in own_protocols and storage_key(link) == own_storage
            return connect(link, self._own_options if is_own else self._with_client(link, {}))
        except (UserError, ValueError, TypeError) as error:  # a URI that its file system can't parse
            raise ImageError("unreadable", public_message(error, self.options)) from None

    def read(self, fs: fsspec.AbstractFileSystem, path: str, row: Row, seconds: float) -> bytes:
        """Read a row's bytes from `path`, where `connect` found it, within a deadline in seconds. Raises ImageError.

        The row may also stand for a part of a container that several images share.
        """
        size, whole_file = row["size"], row["container"] is None
        start = 0 if whole_file else row["position"]
        # One byte more of a whole file: it shows that the file has grown or, if its size is not known, that it is too large.
        end = start + (self.max_bytes if size is None else size) + whole_file
        etag = filesystem.etag(fs, row["version"])
        attempts = 0

        def attempt(seconds: float) -> bytes:
            nonlocal attempts
            attempts += 1
            data = client.read_range(fs, path, seconds, start, end, etag)
            if size is not None and len(data) < size and not filesystem.is_changed(fs, path, row["version"]):
                raise ShortError(f"{len(data)} bytes came of {size}")
            return data

        try:
            if isinstance(fs, LocalFileSystem) and not (os.path.isfile(path) or os.path.isdir(path)) and os.path.exists(path):
                raise ImageError("not_an_image", "a device or a pipe, no file")
            data = client.with_retries(fs, path, self._policy(fs, seconds), attempt)
            if size is None:
                self.check_size(len(data))
            elif len(data) != size or filesystem.is_changed(fs, path, row["version"]):
                raise ImageError("changed", CHANGED)
            return data
        except StorageError:
            raise
        except Exception as error:  # storage clients raise kinds of their own: whichever it is, it is this image's failure
            raise self.failure(error, attempts) from None

    def read_tail(self, fs: fsspec.AbstractFileSystem, path: str, version: str, length: int) -> tuple[bytes, int]:
        """Read the last bytes of a file, `length` or as many as it has; return them and the file's size. Raises ImageError."""
        etag = filesystem.etag(fs, version)
        try:
            tail = client.with_retries(
                fs, path, self._policy(fs, self.timeout), lambda seconds: client.read_tail(fs, path, seconds, length, etag)
            )
            if filesystem.is_changed(fs, path, version):
                raise ImageError("changed", CHANGED)
            return tail
        except StorageError:
            raise
        except Exception as error:  # as in `read`
            raise self.failure(error) from None

    def failure(self, error: Exception, attempts: int = 1) -> ImageError:
        """Return an image's failure for an error, the last of so many attempts."""
        return image_error(error, self.options, self.timeout, attempts)

    @cached_property
    def _own_storage(self) -> tuple[set[str], str]:
        return filesystem.protocol_names(self.input), storage_key(self.input)

    @cached_property
    def _own_options(self) -> Options:
        return self._with_client(self.input, self.options)

    @cached_property
    def _web(self) -> WebClient:
        trusted = addresses_of(self.input) if protocol(self.input) in WEB else ()
        return WebClient(trusted, self.connections, self.timeout / 6, self.user_agent)

    def _with_client(self, uri: str, options: Options) -> Options:
        """Return the options with our limits of connections and idle time, and for web links our client, which guards against SSRF."""
        if protocol(uri) in WEB:
            return options | {"get_client": self._web}
        return filesystem.fetch_options(uri, options, self.connections, self.timeout / 6)

    def _policy(self, fs: fsspec.AbstractFileSystem, seconds: float) -> Policy:
        return Policy(seconds, self.first_wait, attempts=WEB_ATTEMPTS if is_http(fs) else None)
