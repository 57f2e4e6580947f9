"""Fetching in a separate process of limited memory. Bytes that crash it or fill its memory, such as a table's page, fail alone.

Images are normally fetched in the worker, many at once; only those of a block that has killed its worker are fetched here, one at a
time. The process has the worker's credentials, since it reads the storage.

    python -m pipeline.images.fetch_process FILE_DESCRIPTOR MEMORY      # how it starts that process
"""

import json
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from pipeline.errors import ImageError, StorageError
from pipeline.images import parquet_reader
from pipeline.images.coalesce import Row
from pipeline.images.failure import OUT_OF_MEMORY
from pipeline.images.fetch import Fetcher

FETCHED, FAILED, REFUSED = b"f", b"e", b"s"
MEMORY_CODE = 77  # of a process that ends for lack of memory


@dataclass(frozen=True)
class FetchProcess:
    """Fetches as `fetcher` does, in a process of at most `memory` bytes. If an image ends it, another one takes over."""

    fetcher: Fetcher
    memory: int
    concurrency: int = 1

    def fetch(self, rows: list[Row]) -> Iterator[tuple[Row, bytes | ImageError]]:
        """Return each row with its bytes or its failure, in order. Raises StorageError, as `Fetcher.fetch` does.

        The process reads a little ahead. If it ends, the next image is fetched by a process of its own, to see whether it is the cause.
        """
        begin, alone = 0, False
        while begin < len(rows):
            wanted = rows[begin : begin + 1] if alone else rows[begin:]
            fetched: list[Row] = []
            code = yield from self._fetch(wanted, fetched)
            begin += len(fetched)
            if alone and not fetched:
                yield rows[begin], _failure(code)
                begin += 1
            alone = not alone and len(fetched) < len(wanted)

    def _fetch(self, rows: list[Row], fetched: list[Row]) -> Generator[tuple[Row, bytes | ImageError], None, int]:
        """Yield the outcomes of a new process until it ends, and return its exit code. Its rows are added to `fetched`."""
        parent, child = socket.socketpair()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "ARROW_DEFAULT_MEMORY_POOL": "system"}
        command = [sys.executable, "-m", __name__, str(child.fileno()), str(self.memory)]
        with child:
            process = subprocess.Popen(command, env=environment, pass_fds=[child.fileno()], stdin=subprocess.DEVNULL)
        connection = Connection(parent.detach())
        try:
            with connection:
                connection.send_bytes(pickle.dumps((replace(self.fetcher, concurrency=1), rows)))
                for row in rows:
                    outcome = _outcome(connection.recv_bytes())
                    fetched.append(row)
                    yield row, outcome
        except (EOFError, OSError):
            pass  # the process ended
        finally:
            process.kill()  # for one that has ended already, this does nothing
            code = process.wait()
        return code


def _outcome(message: bytes) -> bytes | ImageError:
    kind, body = message[:1], message[1:]
    if kind == FETCHED:
        return body
    if kind == FAILED:
        return ImageError(*json.loads(body))
    raise StorageError(body.decode())


def _failure(code: int) -> ImageError:
    """Return the failure of an image at which a process ended with this code."""
    if code == MEMORY_CODE:
        return ImageError("too_large", OUT_OF_MEMORY)
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return ImageError("decoder_crashed", f"reading it ended a process of its own with {how}")


def serve(connection: Connection, memory: int) -> None:
    """Fetch the rows that the connection names, and send the outcome of each. Ends the process if its memory does not suffice."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    parquet_reader.BATCH = 1  # rows that are decoded together fail together
    fetcher, rows = pickle.loads(connection.recv_bytes())
    try:
        for _, outcome in fetcher.fetch(rows):
            if isinstance(outcome, ImageError):
                connection.send_bytes(FAILED + json.dumps([outcome.status, str(outcome)]).encode())
            else:
                connection.send_bytes(FETCHED + outcome)
    except MemoryError:
        os._exit(MEMORY_CODE)
    except StorageError as error:
        connection.send_bytes(REFUSED + str(error).encode())
    except BrokenPipeError:  # the worker needs no more
        pass


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
