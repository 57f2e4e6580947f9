"""Verifies a run's blocks against its manifest, gathers them into the table's files, and records the run last.

    OUTPUT/annotations/dt=YYYY-MM-DD/part-<run_id>-00000.parquet
    OUTPUT/runs/<run_id>.json

The record is written once every file is there and verified, so a reader who starts from the records never sees half a run.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import blocks
from pipeline.manifest import Manifest
from pipeline.storage import Options, connect, write_atomic
from pipeline.table import Tables
from ugrie.schemes import Scheme

FILE_BYTES = 256 * 2**20  # of the blocks that go into one file


class VerificationError(RuntimeError):
    """What was written is not what the manifest asks for; nothing was committed."""


@dataclass(frozen=True)
class Gatherer:
    """Makes one of the table's files out of consecutive blocks."""

    output: str
    folder: str
    options: Options
    manifest: Manifest
    tables: Tables

    def __call__(self, target: str, numbers: Sequence[int]) -> dict[str, Any]:
        """Verifies the blocks, writes them as `target` (a path within the output) and reads it back. Returns its counts."""
        fs, root = connect(self.output, self.options)
        parts = []
        for number in numbers:
            with fs.open(blocks.path(self.folder, number), "rb") as file:
                rows = pq.read_table(file)
            wanted = self.manifest.read(fs, number)
            if not rows.column("image_id").equals(wanted.column("image_id")):
                raise VerificationError(f"block {number} holds {len(rows)} rows that are not the manifest's {len(wanted)}")
            if not rows.schema.equals(self.tables.output):
                raise VerificationError(f"block {number} has another schema than the run's: {rows.schema}")
            parts.append(rows)
        table = pa.concat_tables(parts)
        buffer = BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_atomic(fs, f"{root}/{target}", buffer.getvalue())
        with fs.open(f"{root}/{target}", "rb") as file:
            footer = pq.ParquetFile(file)
            if footer.metadata.num_rows != len(table) or not footer.schema_arrow.equals(self.tables.output):
                raise VerificationError(f"{target} does not read back as it was written")
        labels = {s.name: count_labels(s, table.column(s.name)) for s in self.tables.schemes}
        return {"file": target, "rows": len(table), "status": counts(table.column("status")), "labels": labels}


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


def write_record(fs: fsspec.AbstractFileSystem, root: str, record: dict[str, Any]) -> str:
    """Commits a run: from here on its files are part of the table. Returns the record's path."""
    path = f"{root}/runs/{record['run_id']}.json"
    write_atomic(fs, path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return path
