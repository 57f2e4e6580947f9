"""Fetching in a separate process: what ends it or fills its memory costs the images at fault alone."""

import os
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from signal import SIGABRT

import pyarrow as pa
import pytest

from pipeline.errors import ImageError, StorageError
from pipeline.images import fetch_process
from pipeline.images.failure import OUT_OF_MEMORY
from pipeline.images.fetch_process import FetchProcess
from pipeline.sources.source import list_items
from tests.plugins.fetching import fetched, fetcher

MEMORY = 2_000_000_000


@dataclass(frozen=True)
class Doing:
    """A fetcher that does what its rows say, and reads one row ahead."""

    concurrency: int

    def fetch(self, rows):
        assert self.concurrency == 1
        for row, following in zip(rows, [*rows[1:], "end"], strict=True):
            for each in (row, following):
                if each == "crash":
                    raise SystemExit(-SIGABRT)
                if each == "memory":
                    raise MemoryError
            if row == "refused":
                raise StorageError("the credentials are expired")
            yield row, ImageError("missing", "it is gone") if row == "gone" else row.encode()


class FakePopen:
    """A process as a thread: it exits as the code in it does."""

    def __init__(self, command, pass_fds, **_):
        self.connection = Connection(os.dup(pass_fds[0]))
        self.thread = threading.Thread(target=self.run, args=(int(command[-1]),))
        self.thread.start()
        started.append(self)

    def run(self, memory):
        self.code = 0
        with self.connection:
            try:
                fetch_process.serve(self.connection, memory)
            except SystemExit as end:
                self.code = end.code

    def kill(self):
        pass

    def wait(self):
        self.thread.join()
        return self.code


started = []


@pytest.fixture
def outcomes(monkeypatch):
    """Returns the outcomes of rows, and the number of processes that this took."""
    monkeypatch.setattr(fetch_process.subprocess, "Popen", FakePopen)
    monkeypatch.setattr(fetch_process.resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(fetch_process.parquet_reader, "BATCH", 64)
    monkeypatch.setattr(fetch_process.os, "_exit", sys.exit)
    started.clear()

    def outcomes(*rows):
        found = list(FetchProcess(Doing(16), MEMORY).fetch(list(rows)))
        assert [row for row, _ in found] == list(rows)
        return [data if isinstance(data, bytes) else (data.status, str(data)) for _, data in found], len(started)

    return outcomes


CRASHED, FULL = ("decoder_crashed", "reading it ended a process of its own with SIGABRT"), ("too_large", OUT_OF_MEMORY)


@pytest.mark.parametrize(
    ("rows", "expected", "processes"),
    [
        (["a", "gone", "b"], [b"a", ("missing", "it is gone"), b"b"], 1),
        (["a", "b", "crash", "c", "d"], [b"a", b"b", CRASHED, b"c", b"d"], 5),  # b, read while the crash was ahead, and the crash are alone
        (["crash"], [CRASHED], 2),
        (["memory", "memory", "a"], [FULL, FULL, b"a"], 5),
        ([], [], 0),
    ],
)
def test_an_image_that_ends_the_process_or_fills_its_memory_fails_alone(outcomes, rows, expected, processes):
    assert outcomes(*rows) == (expected, processes)


def test_what_stops_a_run_is_raised(outcomes):
    with pytest.raises(StorageError, match="the credentials are expired"):
        outcomes("a", "refused")


def test_images_are_fetched_as_in_the_worker(images, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(images.jpeg(i))
    items = list(list_items(str(tmp_path), "uri", {}))
    (tmp_path / "1.jpg").unlink()
    worker = fetcher(tmp_path, max_bytes=10**6)
    assert fetched(FetchProcess(worker, MEMORY), *items) == fetched(worker, *items)


def test_a_page_that_does_not_fit_into_memory_is_too_large(tmp_path):
    failure = fetcher(tmp_path).reader.failure(pa.ArrowMemoryError("malloc of size 4831838208 failed"))
    assert (failure.status, str(failure)) == ("too_large", OUT_OF_MEMORY)
