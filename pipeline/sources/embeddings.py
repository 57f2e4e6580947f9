"""Input source: embeddings stored by earlier runs, which are annotated again without reading an image.

Reads the committed runs of an output that stored embeddings of the same image tower. Where several runs annotated an image, its newest
row is used. Images that failed in those runs have no embedding and are left out. Columns that those runs kept from their input are kept
again if they are asked for, by their names in the table; then the same holds for rows.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StorageError, UserError
from pipeline.inputs.item import Item, Kept
from pipeline.storage.files import open_file
from pipeline.storage.filesystem import Options
from pipeline.storage.uris import public_message, without_secrets
from pipeline.table.commit import part_of
from pipeline.table.image_ids import unreadable
from pipeline.table.kept_columns import Keep
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord, current_runs
from pipeline.table.schema import ROW_ID
from pipeline.table_formats import table_format

logger = logging.getLogger(__name__)
LOST = "restore it, then resume with the same --run-id; or, if rows of it were erased, give another --run-id"
IMAGES_AGAIN = "annotate the images themselves, without --from-embeddings"
PARTITION = re.compile(r"(?P<root>.*?)/annotations/dt=(?P<date>\d{4}-\d\d-\d\d)/*")
LISTED = ["image_id", "uri", "bytes", "status", "run_id"]  # columns read to list the images
COLUMNS = ["uri", "content_hash", "width", "height", "bytes", "embedding"]  # columns read to annotate them


def embedded_items(uri: str, tower: str, options: Options, keep: Keep | None = None) -> Iterator[Item]:
    """List the images with embeddings of a tower in an output, or in one of its partitions (`OUTPUT/annotations/dt=YYYY-MM-DD`).

    `tower` is the image tower's digest. An item's `container` is the table's file that holds the embedding, its `position` the row there.
    An image of several runs is listed several times, the newest row first. Raises UserError where there are no such embeddings, or none
    with the columns to `keep`.
    """
    keep = keep or Keep()
    source = EmbeddedRuns.of(uri, tower, options, keep)
    empty = True
    for file, run_id in source.files():
        for item in embedded_rows(source.output, file, keep, run_id):
            empty = False
            yield item
    if empty:
        raise source.nothing_found()


@dataclass(frozen=True)
class EmbeddedRuns:
    """The runs of an output, or of a partition of it, and those that stored embeddings. `tower` is the digest of the tower asked for."""

    uri: str
    output: OutputFolder
    tower: str
    runs: list[RunRecord]
    with_embeddings: list[RunRecord]

    @classmethod
    def of(cls, uri: str, tower: str, options: Options, keep: Keep) -> "EmbeddedRuns":
        """Look up the runs, those with the columns to keep where there are some. Raises UserError where there are none."""
        public_uri = without_secrets(uri)
        partition = PARTITION.fullmatch(uri)
        output = OutputFolder(partition["root"] if partition else uri, options)
        runs = [run for run in current_runs(output, IMAGES_AGAIN) if partition is None or run.date.isoformat() == partition["date"]]
        if not runs:
            raise UserError(f"{public_uri} holds no committed run: name the --output of an earlier run, or a partition of it")
        with_embeddings = [run for run in runs if run.config.get("keep_embeddings")]
        if with_embeddings and keep:
            kept = [run.kept_columns for run in with_embeddings]
            with_embeddings = [run for run in with_embeddings if run.kept_columns == set(keep.columns)]
            if not with_embeddings:
                shown = " or ".join(sorted({", ".join(sorted(names)) or "none" for names in kept}))
                raise UserError(f"keep_columns: the runs with embeddings of {public_uri} kept {shown}: give their columns, by these names")
        elif lost := sorted({name for run in with_embeddings for name in run.kept_columns}):
            logger.warning(
                "each image gets one row, without %s: to keep these columns of the input, give them as --keep-columns", ", ".join(lost)
            )
        return cls(public_uri, output, tower, runs, with_embeddings)

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield the files with embeddings of the tower, each with the ID of the run whose rows in it are meant, the newest run first."""
        current = table_format.files_of(self.output, self.with_embeddings)
        for run in self.with_embeddings:
            if run.tower == self.tower:
                yield from ((file, run.run_id) for file in (run.files if current is None else _files_now(run, current)))

    def nothing_found(self) -> UserError:
        """Return the error for files without a single image that could be annotated, or no files."""
        if not self.with_embeddings:
            reason = f"none of its {len(self.runs)} runs used --keep-embeddings"
        elif others := ", ".join(sorted({run.model for run in self.with_embeddings if run.tower != self.tower})):
            reason = f"its embeddings are of another tower ({others})"
        else:
            reason = "no image of its runs could be annotated"
        return UserError(f"{self.uri} holds no embeddings of this model's image tower: {reason}")


def _files_now(run: RunRecord, current: Sequence[str]) -> list[str]:
    """Return the files of a Delta or Iceberg table that hold a run's rows now: its own, and compacted ones of its date."""
    own = set(run.files)
    return [file for file in current if file in own or (part_of(file) is None and f"/dt={run.date}/" in file)]


def embedded_rows(output: OutputFolder, file: str, keep: Keep, run_id: str) -> Iterator[Item]:
    """List the images of a run in one file of the table that were annotated."""
    kept_columns = [ROW_ID, *keep.columns] if keep else []
    path = output.absolute(file)
    try:
        with output.open(file) as opened:
            position = 0
            for batch in pq.ParquetFile(opened, pre_buffer=True).iter_batches(columns=[*LISTED, *kept_columns]):
                columns = (batch.column(name).to_pylist() for name in LISTED)
                kept = None
                if keep:
                    kept = keep.batch([batch.column(name) for name in keep.columns], file).append_column(ROW_ID, batch.column(ROW_ID))
                for i, (image_id, uri, size, status, written_by) in enumerate(zip(*columns, strict=True)):
                    if status == "ok" and written_by == run_id:
                        yield Item(uri, size, "", path, position, None, image_id, None if kept is None else Kept(kept, i))
                    position += 1
    except (OSError, KeyError, pa.ArrowException) as error:
        raise unreadable(path, error) from None


def read_embedded(fs: fsspec.AbstractFileSystem, rows: pa.Table) -> pa.Table:
    """Read COLUMNS of a block's images; `rows` are the block's manifest rows, made of `embedded_items`. Keeps their order and IDs.

    Raises StorageError where a file of the table is gone or has changed since it was listed.
    """
    tables: list[pa.Table] = []
    containers, positions = rows["container"].to_pylist(), rows["position"].to_numpy()
    starts = [0, *(i for i in range(1, len(rows)) if containers[i] != containers[i - 1])]
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        try:
            with open_file(fs, containers[start]) as file:
                tables += _rows_at(pq.ParquetFile(file, pre_buffer=True), positions[start:end])
        except (OSError, KeyError, IndexError, pa.ArrowException) as error:
            problem = public_message(error, fs.storage_options)
            message = f"{containers[start]} can't be read ({problem}): {LOST}"
            raise StorageError(message) from None
    table = pa.concat_tables(tables)
    if not table["uri"].equals(rows["uri"]):
        raise StorageError(f"{containers[0]} has changed since it was listed: {LOST}")
    return table.append_column("image_id", rows["image_id"])


def _rows_at(parquet: pq.ParquetFile, positions: np.ndarray) -> Iterator[pa.Table]:
    """Read the rows at ascending positions. A row group that holds some of them is read once."""
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    ends = np.cumsum(sizes)
    groups = np.searchsorted(ends, positions, side="right")
    for group in np.unique(groups):
        within = positions[groups == group] - (ends[group] - sizes[group])
        rows = parquet.read_row_group(int(group), COLUMNS, use_threads=False)
        contiguous = within[-1] - within[0] + 1 == len(within)  # the common case: a slice copies nothing
        yield rows.slice(within[0], len(within)) if contiguous else rows.take(pa.array(within))


def embeddings_of(rows: pa.Table) -> np.ndarray:
    """Return the column of embeddings as float16 [rows, embedding_dim]."""
    column = rows["embedding"].combine_chunks()
    return column.flatten().to_numpy().astype(np.float16, copy=False).reshape(len(rows), -1)
