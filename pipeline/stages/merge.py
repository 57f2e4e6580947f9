"""Verifies a run's blocks against its manifest, and gathers them into the table's files."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.inputs.manifest import Manifest
from pipeline.stages.write import done_blocks, file_name
from pipeline.storage.parallel import mapped
from pipeline.table.output_folder import OutputFolder
from pipeline.table.schema import Tables
from pipeline.table.stats import add, count_labels, counts
from ugrie.text import one_line

logger = logging.getLogger(__name__)

FILE_BYTES = 256 * 2**20  # of the blocks that go into one file
FILE_ROWS = 2**20  # which are 150 MB of four schemes; and where most rows are to be copied, blocks hold little yet
GROUP_ROWS = 2**14  # of a file, that are read as one: few enough that some rows can be copied without reading them all
PIECE = 8 * 2**20
THREADS = 16  # which wait for storage, most of the time


class VerificationError(RuntimeError):
    """What was written is not what the manifest asks for. Nothing was committed; what is wrong is gone, and done again on resuming."""


@dataclass(frozen=True)
class Gatherer:
    """Makes one of the table's files out of consecutive blocks. They lie on the local disk meanwhile, not in memory."""

    output: OutputFolder
    folder: str
    manifest: Manifest
    tables: Tables

    def __call__(self, target: str, numbers: Sequence[int]) -> dict[str, Any]:
        """Verifies the blocks, writes them as `target` (a path within the output) and reads it back. Returns its counts.

        Where there is nothing that a row could be copied from, nothing is written, and `{"again": blocks}` returned: those are to
        be done again, alone.
        """
        with TemporaryDirectory(prefix="ugrie-") as here:
            fetched = mapped(lambda number: self._fetched(number, here), numbers, THREADS)
            copied, again = self._copied(here, dict(zip(numbers, fetched, strict=True)))
            if again:
                return {"again": again}
            file = f"{here}/gathered.parquet"
            results = []
            with pq.ParquetWriter(file, self.tables.output, compression="zstd", use_dictionary=self.tables.repeating) as writer:
                for group in self._groups(numbers):
                    rows = pa.concat_tables([self._rows(number, here) for number in group])
                    whole = self._whole(rows, copied)
                    writer.write_table(whole, row_group_size=GROUP_ROWS)
                    results.append(self._counts(whole, rows["owner"].drop_null()))
            self.output.upload(file, target)
            result = add(results, self.tables.schemes)
            if not _reads_back(self.output, target, file) or pq.read_metadata(file).num_rows != result["rows"]:
                raise VerificationError(f"{target} does not read back as it was written")
        return {"file": target, **result}

    def _groups(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """The blocks whose rows are written as one group, each held no longer than that."""
        group: list[int] = []
        for number in numbers:
            if group and sum(map(self.manifest.rows_of, [*group, number])) > GROUP_ROWS:
                yield group
                group = []
            group.append(number)
        yield group

    def _counts(self, rows: pa.Table, owners: pa.ChunkedArray) -> dict[str, Any]:
        earlier = pc.sum(pc.match_substring(owners, "/")).as_py() or 0
        return {
            "rows": len(rows),
            "status": counts(rows["status"]),
            "reposts": {"run": len(owners) - earlier, "earlier": earlier},
            "labels": {scheme.name: count_labels(scheme, rows[scheme.name]) for scheme in self.tables.schemes},
        }

    def _fetched(self, number: int, here: str) -> pa.Table:
        """The copies among a block's rows: `owner` and `content_hash`. Its file lies `here` then. It is what the manifest asks for."""
        data = self.output.read(f"{self.folder}/{file_name(number)}")
        Path(here, file_name(number)).write_bytes(data)
        wanted = self.manifest.read(self.output, number).column("image_id")
        with self._sound(number):
            file = pq.ParquetFile(pa.BufferReader(data))
            if not file.schema_arrow.equals(self.tables.written):
                raise ValueError("its rows are not in the run's schema")
            rows = file.read(["image_id", "owner", "content_hash"], use_threads=False)
            if not rows.column("image_id").equals(wanted):
                raise ValueError(f"it holds {len(rows)} rows that are not the manifest's {len(wanted)}")
            return rows.select(["owner", "content_hash"]).filter(pc.is_valid(rows["owner"]))

    def _rows(self, number: int, here: str) -> pa.Table:
        with self._sound(number):
            return pq.ParquetFile(Path(here, file_name(number))).read(use_threads=False)

    @contextmanager
    def _sound(self, number: int) -> Iterator[None]:
        """Where a block's file turns out to be broken, it is removed, so that it is done again."""
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            self.output.remove(f"{self.folder}/{file_name(number)}")
            raise VerificationError(f"block {number} is broken: {one_line(str(error))}; the same --run-id does it again") from None

    def _copied(self, here: str, copies: dict[int, pa.Table]) -> tuple[pa.Table, list[int]]:
        """What rows of these blocks are to be copied from, a row for each content; and the blocks that lack something."""
        wanted: dict[str, set[str]] = {}
        for rows in copies.values():
            for owner, content_hash in zip(rows["owner"].to_pylist(), rows["content_hash"].to_pylist(), strict=True):
                wanted.setdefault(owner, set()).add(content_hash)
        ours = sorted(owner for owner in wanted if not _is_earlier(owner))
        found = [self._kept.empty_table()]
        found += mapped(lambda owner: self._of_block(owner, Path(here, owner), wanted[owner]), ours, THREADS)
        for owner in sorted(filter(_is_earlier, wanted)):  # large files, one at a time
            found += self._of_file(owner, wanted[owner])
        copied = pa.concat_tables(found).combine_chunks()
        there = copied["content_hash"].combine_chunks()
        return copied, [number for number, rows in copies.items() if not pc.all(pc.is_in(rows["content_hash"], there), min_count=0).as_py()]

    @property
    def _kept(self) -> pa.Schema:
        return pa.schema([self.tables.output.field(name) for name in ("content_hash", *self.tables.of_content)])

    def _of_block(self, owner: str, file: Path, wanted: set[str]) -> pa.Table:
        try:
            block = pq.ParquetFile(file if file.exists() else pa.BufferReader(self.output.read(f"{self.folder}/{owner}")))
            return self._chosen(block.read(use_threads=False), wanted)
        except (OSError, KeyError, pa.ArrowException) as error:
            _lost(owner, error)
            return self._kept.empty_table()

    def _of_file(self, path: str, wanted: set[str]) -> list[pa.Table]:
        """Of an earlier run's file, from those groups of rows that hold what is wanted."""
        found = []
        try:
            with self.output.open(path) as file:
                parquet = pq.ParquetFile(file, pre_buffer=True)
                for group in range(parquet.num_row_groups):
                    hashes = parquet.read_row_group(group, ["content_hash"], use_threads=False)["content_hash"]
                    if pc.any(pc.is_in(hashes, pa.array(wanted, pa.string()))).as_py():
                        found.append(self._chosen(parquet.read_row_group(group, self._kept.names, use_threads=False), wanted))
        except (OSError, KeyError, pa.ArrowException) as error:
            _lost(path, error)
        return found

    def _chosen(self, rows: pa.Table, wanted: set[str]) -> pa.Table:
        """The first row of each content that is wanted, and was not copied itself, with what is copied of it."""
        mask = pc.is_in(rows["content_hash"], pa.array(wanted, pa.string()))
        if "owner" in rows.column_names:
            mask = pc.and_(mask, pc.is_null(rows["owner"]))
        rows = rows.filter(mask)
        first = {content_hash: i for i, content_hash in reversed(list(enumerate(rows["content_hash"].to_pylist())))}
        return rows.take(pa.array(sorted(first.values()), pa.int64())).select(self._kept.names).cast(self._kept)

    def _whole(self, rows: pa.Table, copied: pa.Table) -> pa.Table:
        """The rows as they are in the table: those of a repost with what was said of the same bytes."""
        copies = np.flatnonzero(pc.is_valid(rows["owner"]).to_numpy())
        if not len(copies):
            return rows.select(self.tables.output.names)
        hashes = rows["content_hash"].take(copies)
        theirs = copied.take(pc.index_in(hashes, copied["content_hash"].combine_chunks()))
        places = np.arange(len(rows))
        places[copies] = len(rows) + np.arange(len(copies))
        of_content = [table.select(self.tables.of_content) for table in (rows, theirs)]
        merged = pa.concat_tables(of_content).combine_chunks().take(places)
        columns = [(merged if name in self.tables.of_content else rows)[name] for name in self.tables.output.names]
        return pa.table(columns, self.tables.output)


def _is_earlier(owner: str) -> bool:
    """Whether it is a file of the table, which an earlier run wrote, and not a block of this one."""
    return "/" in owner


def _lost(owner: str, error: Exception) -> None:
    logger.warning("%s can't be read (%s): what was to be copied from it is done again", owner, error)


def _reads_back(output: OutputFolder, path: str, wanted: str) -> bool:
    """Whether a file holds exactly what a local one does."""
    with output.open(path, ahead=PIECE) as file, open(wanted, "rb") as local:
        while (piece := local.read(PIECE)) and piece == file.read(PIECE):
            pass
        return not piece and not file.read(1)


def groups(output: OutputFolder, folder: str, manifest: Manifest) -> list[list[int]]:
    """The blocks in order, cut where a file has reached its size. Raises VerificationError if one has no rows."""
    sizes = done_blocks(output, folder)
    if missing := set(range(manifest.blocks)) - set(sizes):
        raise VerificationError(f"{len(missing)} of {manifest.blocks} blocks were not written, the first {min(missing)}")
    cut: list[list[int]] = [[]]
    size = rows = 0
    for number in range(manifest.blocks):
        size += sizes[number]
        rows += manifest.rows_of(number)
        cut[-1].append(number)
        if (size >= FILE_BYTES or rows >= FILE_ROWS) and number < manifest.blocks - 1:
            cut.append([])
            size = rows = 0
    return cut
