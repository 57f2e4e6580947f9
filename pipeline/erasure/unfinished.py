"""Erases images from runs that are not committed yet: from the manifest, from the blocks that are written, and from what will be.

Each gets the list of the images (`pipeline.table.suppressed`), by which its driver leaves out their rows when it commits, whether it is at
work now or resumes the run. In the manifest and in blocks a row stays, since rows are known by their places, but it names nothing.
"""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.erasure.rows import Entries, unreadable
from pipeline.inputs.manifest import plan_path
from pipeline.storage.parallel import parallel_map
from pipeline.table.commit import committing_path
from pipeline.table.image_ids import union
from pipeline.table.output_folder import WORK, OutputFolder, record_path, work_folder
from pipeline.table.schema import ROW_ID, SUPPRESSED
from pipeline.table.suppressed import Suppressed, SuppressList, save

MANIFEST, BLOCK = re.compile(r"manifest-[0-9a-f]+/part-\d+\.parquet"), re.compile(r"rows/block-\d+\.parquet")
STAYS = {"image_id", "retried", ROW_ID, "model", "run_id", "annotated_at"}  # what a row without an image still says
BLANK = {"uri": "", "version": "", "status": SUPPRESSED}  # instead of null
THREADS = 8  # which wait for storage, most of the time


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that is not committed: its files that name images to erase, its `rows` of those images, and their IDs (int64, sorted)."""

    run_id: str
    manifests: tuple[str, ...]
    blocks: tuple[str, ...]
    rows: int
    image_ids: np.ndarray
    from_embeddings: bool


def unfinished_runs(output: OutputFolder, entries: Entries) -> Iterator[UnfinishedRun]:
    """Yield the runs that have no record, each with what of it names images to erase. Raises StorageError."""
    with output.readable():
        run_ids = [name for name in output.names(WORK) if not name.startswith("_") and not output.exists(record_path(name))]
    for run_id in run_ids:
        folder = f"{work_folder(run_id)}/"
        with output.readable():
            files = [f"{folder}{name}" for name in output.find(work_folder(run_id))]
            plan = output.read_json(plan_path(run_id)) or {}
        found = {}
        for kind in (MANIFEST, BLOCK):
            paths = [path for path in files if kind.fullmatch(path.removeprefix(folder))]
            named = parallel_map(partial(_named, output, entries), paths, THREADS)
            found[kind] = {path: ids for path, ids in zip(paths, named, strict=True) if len(ids)}
        yield UnfinishedRun(
            run_id,
            tuple(found[MANIFEST]),
            tuple(found[BLOCK]),
            sum(map(len, found[MANIFEST].values())),
            union([*found[MANIFEST].values(), *found[BLOCK].values()]),
            plan.get("asked", {}).get("from_embeddings", False),
        )


def erase(output: OutputFolder, run: UnfinishedRun, about: SuppressList, suppressed: Suppressed) -> None:
    """Add the list to the run, and blank the rows. A manifest of embeddings stays, since it finds them by the rows' names and places."""
    named = replace(suppressed, image_ids=union([suppressed.image_ids, run.image_ids]))
    with output.writable():
        save(output, run.run_id, f"erased-{uuid.uuid4().hex}", about, named)
        files = [*run.blocks, *([] if run.from_embeddings else run.manifests)]
        for _ in parallel_map(partial(_blank, output, named), files, THREADS):
            pass


def may_be_committing(output: OutputFolder, run_id: str) -> bool:
    """Return whether a run's driver may have looked for lists before the last one was added, and may create its record at any moment."""
    with output.readable():
        return output.exists(committing_path(run_id))


def _named(output: OutputFolder, entries: Entries, path: str) -> np.ndarray:
    """Return the IDs of a file's rows to erase; none where it is gone, since the run is committed by now."""
    try:
        with output.open(path) as opened:
            parquet = pq.ParquetFile(opened)
            columns = {*entries.suppressed.columns, "image_id"} & set(parquet.schema_arrow.names)
            rows = parquet.read(sorted(columns), use_threads=False)
    except FileNotFoundError:
        return np.empty(0, np.int64)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(output, path, error) from None
    return rows["image_id"].to_numpy()[entries.rows(rows)]


def _blank(output: OutputFolder, suppressed: Suppressed, path: str) -> None:
    """Write a file of the run again, with the same row groups, in which the rows to erase name no image."""
    try:
        parquet = pq.ParquetFile(BytesIO(output.read(path)))
    except FileNotFoundError:
        return
    buffer = BytesIO()
    with pq.ParquetWriter(buffer, parquet.schema_arrow, compression="zstd") as writer:
        for group in range(parquet.num_row_groups):
            rows = parquet.read_row_group(group, use_threads=False)
            writer.write_table(_blanked(rows, suppressed.rows(rows)), row_group_size=max(1, len(rows)))
    output.write(path, buffer.getvalue())


def _blanked(rows: pa.Table, named: np.ndarray) -> pa.Table:
    places = np.where(named, len(rows), np.arange(len(rows)))
    columns = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if field.name in STAYS:
            columns.append(column)
        elif field.name in BLANK:
            columns.append(pc.if_else(pa.array(named), BLANK[field.name], column))
        else:
            with_null = pa.concat_arrays([*column.chunks, pa.nulls(1, field.type)])
            columns.append(with_null.take(pa.array(places)))
    return pa.table(columns, rows.schema)
