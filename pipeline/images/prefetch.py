"""A file that requests byte ranges ahead of its reader, in the background."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from itertools import islice
from typing import NamedTuple

from pipeline.images.coalesce import MAX_REQUEST_BYTES, PREFETCH_BYTES
from pipeline.storage.retry import ShortError


class Chunk(NamedTuple):
    """Bytes [start, end) that will be read in order, from `start` to somewhere near `likely_end`."""

    start: int
    likely_end: int
    end: int


@dataclass
class Request:
    """Bytes [start, end) of the file, and their response once the request is submitted."""

    start: int
    end: int
    response: Future[bytes] | None = None


class PrefetchingFile(RawIOBase):
    """A file of `size` bytes, of which the `tail` is given and `get(start, end)` requests the rest.

    In memory are at most PREFETCH_BYTES requested ahead, the response that is being read (at most MAX_REQUEST_BYTES), and a single
    read.
    """

    def __init__(self, size: int, tail: bytes, get: Callable[[int, int], bytes]):
        super().__init__()
        self.size = size
        self._get = get
        self._position = 0
        self._buffer_start, self._buffer = size - len(tail), memoryview(tail)  # the response that is being read
        self._requests: deque[Request] = deque()  # those that follow, in the order of reading
        self._chunks: list[Chunk] = []
        self._pool: Executor | None = None

    def prefetch(self, chunks: list[Chunk], pool: Executor, get: Callable[[int, int], bytes], resumes: bool) -> None:
        """Request `chunks` ahead, which will be read in this order.

        `resumes` states that the reader is within the first chunk: what comes before its position there is not requested again.
        """
        self._pool, self._get, self._chunks = pool, get, chunks
        if not resumes:
            self._requests.clear()
        covered = self._requests[-1].end if self._requests else self._buffer_start + len(self._buffer)
        for i, chunk in enumerate(chunks):
            is_ahead = chunk.start >= self._buffer_start or (resumes and i == 0)
            start = max(chunk.start, covered) if is_ahead else chunk.start
            self._requests += _split(start, chunk.likely_end, chunk.end)
        self._submit()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._position = offset + {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self.size}[whence]
        return self._position

    def read(self, size: int = -1) -> memoryview:
        """Read as file objects do, but return a view: Arrow takes any buffer, and a view copies nothing."""
        start = self._position
        end = self.size if size < 0 else min(start + size, self.size)
        if start >= end:
            return memoryview(b"")
        data = self._read_some(start, end)
        if len(data) < end - start:
            whole, filled = memoryview(bytearray(end - start)), 0
            while filled < len(whole):
                data = self._read_some(start + filled, end)
                whole[filled : filled + len(data)] = data
                filled += len(data)
            data = whole
        self._position = end
        return data

    def _read_some(self, start: int, end: int) -> memoryview:
        """Return the first of bytes [start, end): as many as one response holds."""
        if not self._buffer_start <= start < self._buffer_start + len(self._buffer):
            self._buffer_start, self._buffer = start, memoryview(self._receive(start, end))
        return self._buffer[start - self._buffer_start : end - self._buffer_start]

    def _receive(self, start: int, end: int) -> bytes:
        """Wait for the response that begins at `start`, and drop the requests before it."""
        if not any(request.start == start for request in self._requests):  # the footer, or more of a chunk than was likely
            chunk_end = next((chunk.end for chunk in self._chunks if chunk.start <= start < chunk.end), end)
            end = max(end, min(start + MAX_REQUEST_BYTES, chunk_end))
            self._requests.extendleft(reversed(_split(start, end, end)))
        while self._requests[0].start != start:
            self._requests.popleft()
        self._submit()
        request = self._requests.popleft()
        data = self._get(request.start, request.end) if request.response is None else request.response.result()
        if not data:
            raise ShortError(f"0 bytes came of {request.end - request.start}")
        self._submit()
        return data

    def _submit(self) -> None:
        """Submit the next PREFETCH_BYTES of requests. Those that an earlier pool cancelled are submitted again."""
        if self._pool is not None:
            for request in islice(self._requests, PREFETCH_BYTES // MAX_REQUEST_BYTES):
                if request.response is None or request.response.cancelled():
                    request.response = self._pool.submit(self._get, request.start, request.end)


def _split(start: int, stop: int, end: int) -> list[Request]:
    """Return requests of MAX_REQUEST_BYTES from `start` until they reach `stop`; none goes beyond `end`."""
    return [Request(at, min(at + MAX_REQUEST_BYTES, end)) for at in range(start, stop, MAX_REQUEST_BYTES)]
