"""Copies the annotation of an image to its duplicates, which are images with the same bytes.

A duplicate's row names an `owner` (`pipeline.stages.dedup`): the file that holds its original, which is the row to copy from. That is
the file of a block of the same run, or a file of the table that an earlier run wrote. A duplicate keeps the columns of its own, such as
`image_id` and `uri`; `Tables.of_content` lists those that are copied.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import public_message
from pipeline.table.output_folder import OutputFolder
from pipeline.table.schema import Tables

logger = logging.getLogger(__name__)
THREADS = 16  # which wait for storage, most of the time


def count_duplicates(owners: pa.ChunkedArray) -> dict[str, int]:
    """Count the duplicates in a column of owners, where other rows are null: those of this `run`, and those of `earlier` runs."""
    earlier = pc.sum(pc.match_substring(owners, "/")).as_py() or 0
    return {"run": len(owners) - owners.null_count - earlier, "earlier": earlier}


@dataclass(frozen=True)
class Originals:
    """The rows that duplicates are copied from: `content_hash` and the columns that are copied. Of equal hashes the first counts."""

    rows: pa.Table
    tables: Tables

    def cover(self, duplicates: pa.Table) -> bool:
        """Return whether each of these duplicates has its original here."""
        return pc.all(pc.is_in(duplicates["content_hash"], self._hashes), min_count=0).as_py()

    def fill(self, rows: pa.Table) -> pa.Table:
        """Turn rows of blocks into `Tables.annotation`: duplicates get the columns of their originals, and `owner` is dropped."""
        duplicates = np.flatnonzero(pc.is_valid(rows["owner"]).to_numpy())
        if not len(duplicates):
            return rows.select(self.tables.annotation.names)
        originals = self.rows.take(pc.index_in(rows["content_hash"].take(duplicates), self._hashes))
        sources = np.arange(len(rows))
        sources[duplicates] = len(rows) + np.arange(len(duplicates))
        both = [table.select(self.tables.of_content) for table in (rows, originals)]
        filled = pa.concat_tables(both).combine_chunks().take(sources)
        columns = [(filled if name in self.tables.of_content else rows)[name] for name in self.tables.annotation.names]
        return pa.table(columns, self.tables.annotation)

    @cached_property
    def _hashes(self) -> pa.Array:
        return self.rows["content_hash"].combine_chunks()


@dataclass(frozen=True)
class DuplicateCopier:
    """Finds the originals of duplicates, in the run's blocks in `folder` and in the table's files."""

    output: OutputFolder
    folder: str
    tables: Tables

    def originals(self, duplicates: Iterable[pa.Table], local: Path) -> Originals:
        """Read the originals of duplicates, given by `owner` and `content_hash`. A file that can't be read has none.

        A block's file is read from the `local` folder where it is there.
        """
        hashes: dict[str, set[str]] = {}
        for rows in duplicates:
            for owner, content_hash in zip(rows["owner"].to_pylist(), rows["content_hash"].to_pylist(), strict=True):
                hashes.setdefault(owner, set()).add(content_hash)
        blocks = sorted(owner for owner in hashes if not _is_earlier(owner))
        found = [self._schema.empty_table()]
        found += parallel_map(lambda owner: self._of_block(owner, local / owner, hashes[owner]), blocks, THREADS)
        for owner in sorted(filter(_is_earlier, hashes)):  # large files, one at a time
            found += self._of_file(owner, hashes[owner])
        return Originals(pa.concat_tables(found).combine_chunks(), self.tables)

    @property
    def _schema(self) -> pa.Schema:
        return pa.schema([self.tables.annotation.field(name) for name in ("content_hash", *self.tables.of_content)])

    def _of_block(self, owner: str, file: Path, hashes: set[str]) -> pa.Table:
        try:
            block = pq.ParquetFile(file if file.exists() else pa.BufferReader(self.output.read(f"{self.folder}/{owner}")))
            return self._select(block.read(use_threads=False), hashes)
        except (OSError, KeyError, pa.ArrowException) as error:
            _warn(owner, error)
            return self._schema.empty_table()

    def _of_file(self, path: str, hashes: set[str]) -> list[pa.Table]:
        """Read only the row groups that hold one of the hashes."""
        found = []
        try:
            with self.output.open(path) as file:
                parquet = pq.ParquetFile(file, pre_buffer=True)
                for group in range(parquet.num_row_groups):
                    column = parquet.read_row_group(group, ["content_hash"], use_threads=False)["content_hash"]
                    if pc.any(pc.is_in(column, pa.array(hashes, pa.string()))).as_py():
                        found.append(self._select(parquet.read_row_group(group, self._schema.names, use_threads=False), hashes))
        except (OSError, KeyError, pa.ArrowException) as error:
            _warn(path, error)
        return found

    def _select(self, rows: pa.Table, hashes: set[str]) -> pa.Table:
        """Return for each hash the first row that is no duplicate itself, with the columns that are copied."""
        mask = pc.is_in(rows["content_hash"], pa.array(hashes, pa.string()))
        if "owner" in rows.column_names:
            mask = pc.and_(mask, pc.is_null(rows["owner"]))
        rows = rows.filter(mask)
        first = {content_hash: i for i, content_hash in reversed(list(enumerate(rows["content_hash"].to_pylist())))}
        return rows.take(pa.array(sorted(first.values()), pa.int64())).select(self._schema.names).cast(self._schema)


def _is_earlier(owner: str) -> bool:
    """Return whether an owner is a file of the table, which an earlier run wrote, rather than a block of this run."""
    return "/" in owner


def _warn(owner: str, error: Exception) -> None:
    logger.warning("%s can't be read (%s): blocks that copy rows of it are annotated again", owner, public_message(error, {}))
