"""Whose the bytes are: an image that was posted again is annotated once, and its other rows are copied from that one.

One actor, which takes no CPU. It knows of every content hash so far which file of rows will have, or has, the row that the others are
copied from: this run's block that claimed it first, or a file that an earlier run of the same model wrote. Workers ask it for some
tens of images at once. What it holds may be lost, with its node or because it does not answer: then images are annotated again that
need not have been, and no more than that. The copying, and what happens where there is nothing to copy, is `pipeline.stages.merge`'s.
"""

import datetime as dt
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.stages.write import file_name
from pipeline.storage.parallel import mapped
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord, past_runs
from pipeline.table.schema import Tables

logger = logging.getLogger(__name__)

# What an earlier night says of some bytes for good. That they took too long, or were too large, depends on its limits.
LASTING = ("ok", "not_an_image", "corrupt", "decoder_crashed")
CACHE_KIB = 64 * 2**10
INSERTED = 20_000  # keys that are put in at once, in some hundredths of a second: so long a claim may have to wait
KNOWING_SECONDS = 10.0  # that a run's first claims may wait for what was annotated before; the model takes as long to load
ANSWER_SECONDS = 40.0
FILES_AT_ONCE = 4
BLOCKS_AT_ONCE = 16


@dataclass(frozen=True)
class Past:
    """Which rows are there already: those of this run's blocks that are done, and of earlier runs that said the same things.

    A run counts if it was finished since `since`, by the same model and tower in the same precision, for the same schemes in the
    same order: what is said of a scheme depends on the ones before it.
    """

    output: OutputFolder
    folder: str
    done: tuple[int, ...]
    tables: Tables
    precision: str
    tower_weights: str | None
    since: dt.datetime | None

    def files(self) -> list[str]:
        """The files of the table that may be copied from, the newest night's first: paths within the output."""
        if self.since is None:
            return []
        runs = past_runs(self.output, self.tables.model)
        return [file for run in runs if self._fits(run, self.since) for file in run.files]

    def _fits(self, run: RunRecord, since: dt.datetime) -> bool:
        return (
            run.finished_at >= since
            and run.precision == self.precision
            and run.config.get("tower_weights") == self.tower_weights
            and list(run.schemes) == [scheme.name for scheme in self.tables.schemes]
        )

    def keys(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each file's name, as an owner, with the keys of what may be copied from it. A file that can't be read has none."""
        yield from mapped(self._of_block, self.done, BLOCKS_AT_ONCE)
        yield from mapped(self._of_file, self.files(), FILES_AT_ONCE)

    def _of_block(self, block: int) -> tuple[str, np.ndarray]:
        path = f"{self.folder}/{file_name(block)}"
        try:
            rows = pq.read_table(pa.BufferReader(self.output.read(path)), columns=["owner", "content_hash"], use_threads=False)
            return file_name(block), keys_of(rows.filter(pc.is_null(rows["owner"]))["content_hash"])
        except Exception as error:  # the commit will say what is wrong with it
            return _nothing(path, error)

    def _of_file(self, file: str) -> tuple[str, np.ndarray]:
        try:
            with self.output.open(file) as opened:
                parquet = pq.ParquetFile(opened, pre_buffer=True)
                there = {field.name: field.type for field in parquet.schema_arrow}
                if any(there.get(name) != self.tables.output.field(name).type for name in self.tables.of_content):
                    return file, np.empty(0, np.int64)
                rows = parquet.read(columns=["content_hash", "status"], use_threads=False)
            return file, keys_of(rows.filter(pc.is_in(rows["status"], pa.array(LASTING)))["content_hash"])
        except Exception as error:  # it is another run's; this one can do without
            return _nothing(file, error)


def _nothing(path: str, error: Exception) -> tuple[str, np.ndarray]:
    logger.warning("%s can't be read (%s): its images are annotated again", path, error)
    return path, np.empty(0, np.int64)


def keys_of(column: pa.ChunkedArray) -> np.ndarray:
    """The keys of content hashes, sorted, each once, nulls left out: the first 8 bytes as int64.

    Two images may have the same key: one of a billion images does in 40 runs, and for a few hundred dollars of computing, two can be
    made that do. It costs no row: what is copied is found by the whole hash, and a block that finds nothing is done again alone.
    """
    some = pc.utf8_slice_codeunits(column, 0, 16).drop_null()
    digits = "".join(some.to_pylist())
    return np.unique(np.frombuffer(bytes.fromhex(digits), ">i8").astype(np.int64))


def key(content_hash: str) -> int:
    """As `keys_of`, of one."""
    return int.from_bytes(bytes.fromhex(content_hash[:16]), "big", signed=True)


class Ledger:
    """The actor: whose each key is. It lies in a file of SQLite's that has no name; memory holds `CACHE_KIB` of it at most."""

    def __init__(self, past: Past | None = None):
        self.base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size = -{CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            self.base.execute(f"PRAGMA {setting}")
        self.base.execute("CREATE TABLE owners (key INTEGER PRIMARY KEY, owner INTEGER NOT NULL)")
        self.lock = threading.Lock()
        self.files: list[str] = []  # owners that are no blocks: -1 is the first
        self.known = threading.Event()
        self.wait_until = time.monotonic() + KNOWING_SECONDS
        if past is None:
            self.known.set()
        else:
            threading.Thread(target=self._learn, args=(past.keys,), name="past", daemon=True).start()

    def claim(self, block: int, keys: Sequence[int]) -> list[str | None]:
        """For every key, the file whose row is to be copied; None where it is the block's own, from now on or by an earlier claim."""
        self.known.wait(max(0.0, self.wait_until - time.monotonic()))
        with self.lock:
            self._put(keys, block)
            owners = [self.base.execute("SELECT owner FROM owners WHERE key = ?", (each,)).fetchone()[0] for each in keys]
            return [None if owner == block else file_name(owner) if owner >= 0 else self.files[-1 - owner] for owner in owners]

    def _learn(self, keys: Any) -> None:
        clock, count = time.perf_counter(), 0
        try:
            for file, some in keys():
                count += len(some)
                with self.lock:
                    self.files.append(file)
                for start in range(0, len(some), INSERTED):
                    with self.lock:
                        self._put(some[start : start + INSERTED].tolist(), -len(self.files))
        except Exception:
            logger.warning("not all is known of what was annotated before: more is annotated again", exc_info=True)
        self.known.set()
        logger.info("%d images are known from before, after %.1f s", count, time.perf_counter() - clock)

    def _put(self, keys: Iterable[int], owner: int) -> None:
        self.base.execute("BEGIN")
        self.base.executemany("INSERT OR IGNORE INTO owners VALUES (?, ?)", zip(keys, repeat(owner), strict=False))
        self.base.execute("COMMIT")


@dataclass(frozen=True)
class Reposts:
    """A run's ledger, as workers hold it. Without an actor every block does all of its images itself."""

    ledger: Any = None

    @classmethod
    def open(cls, past: Past) -> "Reposts":
        """Starts the actor on the driver's node; it learns what is there already while it is asked."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 64, "scheduling_strategy": here}
        return cls(ray.remote(Ledger).options(**lasting).remote(past))

    def owners(self, block: int, hashes: Sequence[str]) -> list[str | None]:
        """For every content hash, the file whose row is to be copied; None where the block is to do the image itself."""
        if self.ledger is None or not hashes:
            return [None] * len(hashes)
        try:
            return ray.get(self.ledger.claim.remote(block, list(map(key, hashes))), timeout=ANSWER_SECONDS)
        except RayError as error:
            logger.warning("nobody says which images were posted before (%s): they are annotated again", type(error).__name__)
            return [None] * len(hashes)
