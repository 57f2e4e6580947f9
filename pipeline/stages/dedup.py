"""Finds duplicates by content hash: of images with the same bytes one is annotated, and its row is copied to the others.

An actor, which takes no CPU, holds the owner of each content hash: the file whose row is copied. That is the file of the block of this
run that claimed the hash first, or a file of the table that an earlier run of the same model wrote. A run with many loaders has several
actors, each for a range of the hashes, on any nodes. Workers claim the hashes of some tens of images per call. An actor's state may be
lost, with its node or because it does not answer: then some images whose hashes are in its range are annotated once more, and nothing else
happens. `pipeline.stages.duplicates` copies the rows.
"""

import datetime as dt
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import public_message
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord, past_runs
from pipeline.table.schema import Tables

logger = logging.getLogger(__name__)

# Statuses that the same bytes get again: `ok` in every run, failures from the same decoder with the same limits. A `timeout` or
# `too_large` also depends on the machine and its load.
LASTING = ("ok", "not_an_image", "corrupt", "decoder_crashed")
CACHE_KIB = 64 * 2**10
INSERT_ROWS = 20_000  # keys per insert, which takes some hundredths of a second: a claim may have to wait that long
LOAD_SECONDS = 10.0  # that a run's first claims may wait for the keys of earlier rows; loading the model takes as long
CLAIM_SECONDS = 40.0
PARALLEL_FILES = 4
PARALLEL_BLOCKS = 16
# A call costs an actor as much CPU as 100 to 150 hashes do (benchmarks/dedup.py), so a claim has this many hashes for each actor. One actor
# then serves some 50,000 images/s, three times what this many loaders decode. Eight of them are asked for a whole block of 256 at once.
CLAIM_HASHES = 32
LOADERS_A_PART = 64
MOST_PARTS = 8


@dataclass(frozen=True)
class Deduplicator:
    """A run's deduplication, as workers hold it: an actor for each equal range of hashes. Without any, every block annotates all images."""

    actors: tuple[Any, ...] = ()

    @classmethod
    def start(cls, earlier: "EarlierRows", loaders: int) -> "Deduplicator":
        """Start as many actors as that many loaders need. They read the keys of earlier rows while they answer claims.

        A single one is on the driver's node, whose loss ends the run anyway. Several are spread over the nodes.
        """
        parts = min(MOST_PARTS, max(1, -(-loaders // LOADERS_A_PART)))
        node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        # Without the state API's record of each call, and with one thread, a call takes a fifth less CPU.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "enable_task_events": False}
        actor = ray.remote(DedupActor).options(**options, scheduling_strategy=node if parts == 1 else "SPREAD")
        return cls(tuple(actor.remote(earlier, part, parts) for part in range(parts)))

    @property
    def most_claimed(self) -> int:
        """The number of hashes to claim at once: enough that the cost of calling the actors is small."""
        return CLAIM_HASHES * max(1, len(self.actors))

    def owners(self, block: int, hashes: Sequence[str]) -> list[str | None]:
        """Return for each content hash the file whose row is to be copied; None where the block is to annotate the image itself.

        Calls each actor once that holds any of the hashes. Where one does not answer, only the images of its hashes are annotated again.
        """
        found: list[str | None] = [None] * len(hashes)
        if not self.actors:
            return found
        keys = list(map(key, hashes))
        indices: dict[int, list[int]] = {}  # by part
        for i, each in enumerate(keys):
            indices.setdefault(part_of(each, len(self.actors)), []).append(i)
        claims = {part: self.actors[part].claim.remote(block, [keys[i] for i in own]) for part, own in indices.items()}
        end = time.monotonic() + CLAIM_SECONDS
        for part, claim in claims.items():
            try:
                owners = ray.get(claim, timeout=max(0.0, end - time.monotonic()))
            except RayError as error:
                logger.warning("an actor that finds duplicates does not answer (%s): they are annotated again", type(error).__name__)
            else:
                for i, owner in zip(indices[part], owners, strict=True):
                    found[i] = owner
        return found


class DedupActor:
    """An actor: the owner of each key of its part, in an unnamed SQLite file, of which memory holds `CACHE_KIB` at most."""

    def __init__(self, earlier: "EarlierRows | None" = None, part: int = 0, parts: int = 1):
        self.part, self.parts = part, parts
        self.database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in (f"cache_size = -{CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            self.database.execute(f"PRAGMA {setting}")
        self.database.execute("CREATE TABLE owners (key INTEGER PRIMARY KEY, owner INTEGER NOT NULL)")
        self.lock = threading.Lock()
        self.files: list[str] = []  # owners that earlier rows are in: in the database -1 is the first, and blocks have their numbers
        self.loaded = threading.Event()
        self.wait_until = time.monotonic() + LOAD_SECONDS
        if earlier is None:
            self.loaded.set()
        else:
            threading.Thread(target=self._load, args=(earlier.keys,), name="earlier rows", daemon=True).start()

    def claim(self, block: int, keys: Sequence[int]) -> list[str | None]:
        """Return for each key the file whose row is to be copied; None where the block owns it, from now on or by an earlier claim."""
        self.loaded.wait(max(0.0, self.wait_until - time.monotonic()))
        with self.lock:
            self._insert(keys, block)
            owners = [self.database.execute("SELECT owner FROM owners WHERE key = ?", (each,)).fetchone()[0] for each in keys]
            return [None if owner == block else file_name(owner) if owner >= 0 else self.files[-1 - owner] for owner in owners]

    def _load(self, keys_by_file: Callable[[], Iterator[tuple[str, np.ndarray]]]) -> None:
        begun, count = time.perf_counter(), 0
        try:
            for file, keys in keys_by_file():
                keys = keys[part_of(keys, self.parts) == self.part]
                count += len(keys)
                with self.lock:
                    self.files.append(file)
                for start in range(0, len(keys), INSERT_ROWS):
                    with self.lock:
                        self._insert(keys[start : start + INSERT_ROWS].tolist(), -len(self.files))
        except Exception:
            logger.warning("not all earlier rows could be read: more images are annotated again", exc_info=True)
        self.loaded.set()
        logger.info("read the content hashes of %d earlier rows in %.1f s", count, time.perf_counter() - begun)

    def _insert(self, keys: Iterable[int], owner: int) -> None:
        self.database.execute("BEGIN")
        self.database.executemany("INSERT OR IGNORE INTO owners VALUES (?, ?)", zip(keys, repeat(owner), strict=False))
        self.database.execute("COMMIT")


@dataclass(frozen=True)
class EarlierRows:
    """The rows that may be copied: those of this run's finished blocks, and those of earlier runs with the same annotation.

    An earlier run counts if it finished at `since` or later, with the same model and tower in the same precision, for the same schemes
    in the same order: a scheme's labels depend on the schemes before it. Zero-shot schemes must be answered in the same way. Where
    `since` is None, none counts. Its failures count if it had the same `decoder`: another limit, or another version, may read what it
    could not.
    """

    output: OutputFolder
    folder: str
    done: np.ndarray  # numbers of blocks
    tables: Tables
    precision: str
    since: dt.datetime | None
    decoder: str  # `pipeline.images.decode.identity`

    def keys(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield each file that may be an owner, with the keys of the rows to copy: int64. A file that can't be read has none."""
        yield from parallel_map(self._keys_of_block, self.done, PARALLEL_BLOCKS)
        yield from parallel_map(lambda file: self._keys_of_file(*file), self.files().items(), PARALLEL_FILES)

    def files(self) -> dict[str, tuple[str, ...]]:
        """Return the files of the table that may be copied from, of the newest run first: paths within the output, and statuses."""
        if self.since is None:
            return {}
        runs = [run for run in past_runs(self.output, self.tables.model) if self._fits(run, self.since)]
        return {file: LASTING if run.decoder == self.decoder else ("ok",) for run in runs for file in run.files}

    def _fits(self, run: RunRecord, since: dt.datetime) -> bool:
        return (
            run.finished_at >= since
            and run.precision == self.precision
            and run.tower == self.tables.tower
            and list(run.schemes) == [scheme.name for scheme in self.tables.schemes]
            and run.zero_shot == self.tables.zero_shot_digests
        )

    def _keys_of_block(self, block: int) -> tuple[str, np.ndarray]:
        path = f"{self.folder}/{file_name(block)}"
        try:
            rows = pq.read_table(pa.BufferReader(self.output.read(path)), columns=["owner", "content_hash"], use_threads=False)
            return file_name(block), keys_of(rows.filter(pc.is_null(rows["owner"]))["content_hash"])
        except Exception as error:  # merging reports what is wrong with it
            return _no_keys(path, error)

    def _keys_of_file(self, path: str, statuses: tuple[str, ...]) -> tuple[str, np.ndarray]:
        try:
            with self.output.open(path) as file:
                parquet = pq.ParquetFile(file, pre_buffer=True)
                types = {field.name: field.type for field in parquet.schema_arrow}
                if any(types.get(name) != self.tables.output.field(name).type for name in self.tables.of_content):
                    return path, np.empty(0, np.int64)
                rows = parquet.read(columns=["content_hash", "status"], use_threads=False)
            return path, keys_of(rows.filter(pc.is_in(rows["status"], pa.array(statuses)))["content_hash"])
        except Exception as error:  # another run's file, which this run can do without
            return _no_keys(path, error)


def key(content_hash: str) -> int:
    """Return the key of a content hash: its first 8 bytes as int64.

    Two images may have the same key: of a billion images, two do in one of 40 runs, and someone who spends a few hundred dollars on
    computing can make two that do. No row is lost by it: the row to copy is found by the whole hash, and a block that finds none is
    annotated again without copying.
    """
    return int.from_bytes(bytes.fromhex(content_hash[:16]), "big", signed=True)


def part_of(keys: Any, parts: int) -> Any:
    """Return which of `parts` equal ranges a key is in, or each key of an array."""
    return ((keys >> 32) + 2**31) * parts >> 32


def keys_of(column: pa.ChunkedArray) -> np.ndarray:
    """Return the keys of a column of content hashes: int64, sorted, unique, without nulls."""
    prefixes = pc.utf8_slice_codeunits(column, 0, 16).drop_null()
    digits = "".join(prefixes.to_pylist())
    return np.unique(np.frombuffer(bytes.fromhex(digits), ">i8").astype(np.int64))


def _no_keys(path: str, error: Exception) -> tuple[str, np.ndarray]:
    logger.warning("%s can't be read (%s): its images are annotated again", path, public_message(error, {}))
    return path, np.empty(0, np.int64)
