"""Verifies a run's blocks against its manifest, and merges them into the table's files."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import TRANSIENT
from pipeline.inputs.manifest import KEPT, Manifest
from pipeline.inputs.seen import lookup
from pipeline.stages.duplicates import DuplicateCopier, count_duplicates
from pipeline.stages.write import block_sizes, file_name
from pipeline.storage.client import naming_full_disk
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import public_message
from pipeline.table.image_ids import NO_IDS
from pipeline.table.output_folder import OutputFolder
from pipeline.table.schema import ROW_ID, SUPPRESSED, Tables
from pipeline.table.stats import count_labels, count_values, sum_counts, sum_values
from pipeline.table.suppressed import NOTHING, Suppressed

FILE_BYTES = 256 * 2**20  # of the blocks that are merged into one file
FILE_ROWS = 2**20  # 150 MB for four schemes; it bounds files of duplicates, whose blocks are small until rows are copied
GROUP_ROWS = 2**14  # of a row group: few enough that some rows can be copied without reading the whole file
THREADS = 16  # which wait for storage, most of the time
NO_BLOCKS = np.empty(0, np.int64)


class VerificationError(RuntimeError):
    """The blocks or a file are not what the manifest asks for. Nothing is committed; a broken block is deleted, and resuming redoes it."""


class Block(NamedTuple):
    """A verified block: its duplicates (`owner`, `content_hash`), which rows are of retried images, and whether a failure may pass."""

    duplicates: pa.Table
    retried: np.ndarray
    may_pass: bool


def block_groups(output: OutputFolder, folder: str, manifest: Manifest, skipped: np.ndarray = NO_BLOCKS) -> list[np.ndarray]:
    """Return the blocks of each file (int64): all blocks but those skipped, in order, cut where a file reaches its size.

    Raises VerificationError where a block was not written.
    """
    sizes = block_sizes(output, folder, manifest.blocks)
    wanted = np.setdiff1d(np.arange(manifest.blocks), skipped)
    if len(missing := wanted[sizes[wanted] < 0]):
        raise VerificationError(f"{len(missing)} of {manifest.blocks} blocks were not written, the first {missing[0]}")
    size, rows = np.cumsum(sizes[wanted]), np.cumsum(manifest.rows_in(wanted))
    cuts = [0]
    while (start := cuts[-1]) < len(wanted):
        size_before, rows_before = (size[start - 1], rows[start - 1]) if start else (0, 0)
        last = min(np.searchsorted(size, size_before + FILE_BYTES), np.searchsorted(rows, rows_before + FILE_ROWS))
        cuts.append(int(last) + 1)
    return [wanted[start:end] for start, end in pairwise(cuts)]


@dataclass(frozen=True)
class Merger:
    """Merges consecutive blocks into one of the table's files, by way of the local disk rather than memory."""

    output: OutputFolder
    folder: str
    manifest: Manifest
    tables: Tables

    def __call__(
        self, target: str, blocks_of_file: Iterable[int], overtaken: np.ndarray = NO_IDS, suppressed: Suppressed = NOTHING
    ) -> dict[str, Any]:
        """Verify the blocks, write them as `target` (a path within the output) and read it back. Return its counts.

        Rows whose IDs (`Manifest.key`) are `overtaken` (int64, sorted), and rows of `suppressed` images, are left out and counted; where no
        row is left, no file is written. `may_pass` are the blocks with a failure that may pass.

        Where a duplicate's original no longer exists, nothing is written, and `{"again": blocks}` is returned: these blocks are to be
        annotated again, without copying. Raises VerificationError.
        """
        numbers = list(map(int, blocks_of_file))
        copier = DuplicateCopier(self.output, self.folder, self.tables)
        with TemporaryDirectory(prefix="ugrie-") as temporary, naming_full_disk(temporary):
            local = Path(temporary)
            blocks = dict(zip(numbers, parallel_map(lambda number: self._download(number, local), numbers, THREADS), strict=True))
            originals = copier.originals([block.duplicates for block in blocks.values()], local)
            if again := [number for number, block in blocks.items() if not originals.cover(block.duplicates)]:
                return {"again": again}
            merged = local / "merged.parquet"
            results, left_out = [], 0
            encodings = {"use_dictionary": self.tables.repeating, "use_byte_stream_split": self.tables.split}
            with pq.ParquetWriter(merged, self.tables.output, compression="zstd", **encodings) as writer:
                for group in self._row_groups(numbers):
                    rows = pa.concat_tables([self._rows(number, local) for number in group])
                    retried = np.concatenate([blocks[number].retried for number in group])
                    complete, owners = self._with_kept(originals.fill(rows), group), rows["owner"]
                    others = lookup(complete[self.manifest.key].to_numpy(), overtaken)[0]
                    named = suppressed.rows(complete) | pc.equal(complete["status"], SUPPRESSED).to_numpy()
                    left_out += int((named & ~others).sum())
                    if (others | named).any():
                        own = ~(others | named)
                        complete, owners, retried = complete.filter(own), owners.filter(own), retried[own]
                    writer.write_table(complete.cast(self.tables.output), row_group_size=GROUP_ROWS)
                    results.append(self._counts(complete, owners, retried))
            result = sum_counts(results, self.tables.schemes)
            result["suppressed"] = left_out
            result["overtaken"] = sum(map(self.manifest.rows_of, numbers)) - result["rows"] - left_out
            result["may_pass"] = [number for number, block in blocks.items() if block.may_pass]
            if not result["rows"]:
                return result
            self.output.upload(str(merged), target)
            if not self.output.holds(target, str(merged)) or pq.read_metadata(merged).num_rows != result["rows"]:
                raise VerificationError(f"{target} does not read back as it was written")
        return result

    def _download(self, number: int, local: Path) -> Block:
        """Copy a block's file to the local folder and verify it."""
        data = self.output.read(f"{self.folder}/{file_name(number)}")
        (local / file_name(number)).write_bytes(data)
        listed = self.manifest.read(self.output, number)
        expected = listed["image_id"]
        with self._removing_broken(number):
            file = pq.ParquetFile(pa.BufferReader(data))
            if not file.schema_arrow.equals(self.tables.written):
                raise ValueError("its rows are not in the run's schema")
            rows = file.read(["image_id", "owner", "content_hash", "status"], use_threads=False)
            if not rows.column("image_id").equals(expected):
                raise ValueError(f"it holds {len(rows)} rows that are not the manifest's {len(expected)}")
            return Block(
                duplicates=rows.select(["owner", "content_hash"]).filter(pc.is_valid(rows["owner"])),
                retried=listed["retried"].to_numpy(),
                may_pass=pc.any(pc.is_in(rows["status"], pa.array(TRANSIENT)), min_count=0).as_py(),
            )

    def _rows(self, number: int, local: Path) -> pa.Table:
        with self._removing_broken(number):
            return pq.ParquetFile(local / file_name(number)).read(use_threads=False)

    def _with_kept(self, rows: pa.Table, numbers: Sequence[int]) -> pa.Table:
        """Put the values kept from the input beside the rows of these blocks, whose order is the manifest's."""
        if self.tables.kept is None:
            return rows
        listed = pa.concat_tables([self.manifest.read(self.output, number, KEPT) for number in numbers])
        columns = {ROW_ID: listed[ROW_ID], **dict(zip(self.tables.kept.names, _fields(listed["kept"]), strict=True))}
        return pa.table({name: columns[name] if name in columns else rows[name] for name in self.tables.output.names})

    @contextmanager
    def _removing_broken(self, number: int) -> Iterator[None]:
        """Where a block turns out to be broken, delete its file, so that resuming redoes it."""
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            self.output.remove(f"{self.folder}/{file_name(number)}")
            raise VerificationError(
                f"block {number} is broken: {public_message(error, self.output.options)}; the same --run-id annotates it again"
            ) from None

    def _row_groups(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Yield the blocks of each row group: as many as fit, and only these are in memory."""
        group: list[int] = []
        for number in numbers:
            if group and sum(map(self.manifest.rows_of, [*group, number])) > GROUP_ROWS:
                yield group
                group = []
            group.append(number)
        yield group

    def _counts(self, rows: pa.Table, owners: pa.ChunkedArray, retried: np.ndarray) -> dict[str, Any]:
        return {
            "rows": len(rows),
            "status": count_values(rows["status"]),
            "retried": count_values(rows["status"].filter(pa.array(retried))),
            "reposts": count_duplicates(owners),
            "labels": {scheme.name: count_labels(scheme, rows[scheme.name]) for scheme in self.tables.schemes},
            "sums": {scheme.name: sum_values(rows[scheme.name]) for scheme in self.tables.schemes if scheme.kind == "ordinal"},
        }


def _fields(structs: pa.ChunkedArray) -> list[pa.ChunkedArray]:
    """Return the fields of a column of structs as columns."""
    chunks = [struct.flatten() for struct in structs.chunks]
    return [pa.chunked_array(pieces) for pieces in zip(*chunks, strict=True)]
