"""Verifies a run's blocks against its manifest, gathers them into the table's files, and records the run last.

    OUTPUT/annotations/dt=YYYY-MM-DD/part-<run_id>-<attempt>-00000.parquet
    OUTPUT/runs/<run_id>.json

The record is created once every file is there and verified, so a reader who starts from the records never sees half a run.
Each driver's files have names of their own and only one record can be created: of two drivers at once one commits, and what
the other wrote is removed, as is what a driver wrote that died.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import blocks
from pipeline.manifest import Manifest
from pipeline.storage import Options, connect, create_atomic, listed, read, write_atomic
from pipeline.table import Tables
from ugrie.schemes import Scheme

logger = logging.getLogger(__name__)

PART = re.compile(r"\.?part-(?P<run>.+)-[0-9a-f]{8}-\d{5}\.parquet(\.[0-9a-f]{32})?")
FILE_BYTES = 256 * 2**20  # of the blocks that go into one file


class VerificationError(RuntimeError):
    """What was written is not what the manifest asks for. Nothing was committed; what is wrong is gone, and done again on resuming."""


@dataclass(frozen=True)
class Gatherer:
    """Makes one of the table's files out of consecutive blocks."""

    output: str
    folder: str
    options: Options = field(repr=False)
    manifest: Manifest
    tables: Tables

    def __call__(self, target: str, numbers: Sequence[int]) -> dict[str, Any]:
        """Verifies the blocks, writes them as `target` (a path within the output) and reads it back. Returns its counts."""
        fs, root = connect(self.output, self.options)
        table = pa.concat_tables([self._block(fs, number) for number in numbers])
        buffer = BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_atomic(fs, f"{root}/{target}", buffer.getvalue())
        if read(fs, f"{root}/{target}") != buffer.getbuffer() or pq.read_metadata(buffer).num_rows != len(table):
            raise VerificationError(f"{target} does not read back as it was written")
        labels = {s.name: count_labels(s, table.column(s.name)) for s in self.tables.schemes}
        return {"file": target, "rows": len(table), "status": counts(table.column("status")), "labels": labels}

    def _block(self, fs: fsspec.AbstractFileSystem, number: int) -> pa.Table:
        """A block's rows, if they are what the manifest asks for. Else its file is removed, so that it is done again."""
        path = blocks.path(self.folder, number)
        try:
            rows = pq.read_table(pa.BufferReader(read(fs, path)))
        except pa.ArrowException as error:
            problem = f"is broken: {error}"
        else:
            wanted = self.manifest.read(fs, number).column("image_id")
            if rows.schema.equals(self.tables.output) and rows.column("image_id").equals(wanted):
                return rows
            problem = f"holds {len(rows)} rows that are not the manifest's {len(wanted)}, or not in the run's schema"
        fs.rm_file(path)
        raise VerificationError(f"block {number} {problem}; the same --run-id does it again")


def groups(fs: fsspec.AbstractFileSystem, folder: str, manifest: Manifest) -> list[list[int]]:
    """The blocks in order, cut where a file has reached its size. Raises VerificationError if one has no rows."""
    sizes = blocks.done(fs, folder)
    if missing := set(range(manifest.blocks)) - set(sizes):
        raise VerificationError(f"{len(missing)} of {manifest.blocks} blocks were not written, the first {min(missing)}")
    cut: list[list[int]] = [[]]
    size = 0
    for number in range(manifest.blocks):
        size += sizes[number]
        cut[-1].append(number)
        if size >= FILE_BYTES and number < manifest.blocks - 1:
            cut.append([])
            size = 0
    return cut


def counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}


def count_labels(scheme: Scheme, column: pa.ChunkedArray) -> dict[str, int]:
    """How often each label was given; of an ordinal scheme, the level nearest to the value."""
    struct = column.combine_chunks().drop_null()
    if scheme.kind == "categorical":
        found = counts(pa.chunked_array([struct.field("label")]))
        return {label: found.get(label, 0) for label in scheme.label_names}
    nearest = Counter(min(range(len(scheme.values)), key=lambda i: abs(scheme.values[i] - v)) for v in struct.field("value").to_pylist())
    return {label: nearest[i] for i, label in enumerate(scheme.label_names)}


def add(results: Sequence[dict[str, Any]], schemes: Sequence[Scheme]) -> dict[str, Any]:
    """The counts of all files together."""
    status: Counter[str] = Counter()
    for result in results:
        status.update(result["status"])
    labels = {s.name: {label: sum(r["labels"][s.name][label] for r in results) for label in s.label_names} for s in schemes}
    return {"rows": sum(r["rows"] for r in results), "status": dict(status.most_common()), "labels": labels}


def write_record(fs: fsspec.AbstractFileSystem, root: str, record: dict[str, Any]) -> dict[str, Any]:
    """Commits a run: from here on its files are part of the table. Returns its record: another driver's, if that one was first."""
    path = f"{root}/runs/{record['run_id']}.json"
    if create_atomic(fs, path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()):
        return record
    return json.loads(read(fs, path))


def tidy(fs: fsspec.AbstractFileSystem, root: str, record: dict[str, Any]) -> None:
    """Removes what a committed run has no more use for: its work, and the files of its drivers that did not commit it."""
    folder = f"{root}/annotations/dt={record['date']}"
    try:
        for name in listed(fs, folder, lambda: [info["name"] for info in fs.ls(folder, detail=True)]):
            if part_of(name) == record["run_id"] and name.removeprefix(f"{root}/") not in record["files"]:
                fs.rm_file(name)
        if listed(fs, root, lambda: fs.exists(f"{root}/_work/{record['run_id']}")):
            fs.rm(f"{root}/_work/{record['run_id']}", recursive=True)
    except Exception as error:  # the run is done; what is left harms nobody
        logger.warning("run %s is committed, but what it left could not all be removed (%s): jobs/clean.py does", record["run_id"], error)


def part_of(path: str) -> str | None:
    """The run that a file of the table, or the draft of one, was written by; None if it is no such file."""
    named = PART.fullmatch(path.rpartition("/")[2])
    return named and named["run"]
