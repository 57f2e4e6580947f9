"""Images of which an earlier run kept the embeddings: what there is to annotate where no image is to be read.

An output's committed runs count, if they kept the embeddings of the same image tower. Of an image that several of them annotated,
the newest row is taken. Images that could not be annotated then have no embedding, and are not among them.
"""

import re
from collections.abc import Iterator

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StorageError, UserError
from pipeline.inputs.source import Item
from pipeline.storage.files import open_file
from pipeline.storage.filesystem import Options
from pipeline.storage.uris import without_secrets
from pipeline.table.image_ids import unreadable
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord, past_runs
from ugrie.text import one_line

PARTITION = re.compile(r"(?P<root>.*?)/annotations/dt=(?P<date>\d{4}-\d\d-\d\d)/*")
LISTED = ["image_id", "uri", "bytes", "status"]
IMAGE = ["image_id", "uri", "content_hash", "width", "height", "bytes", "embedding"]


def embedded_items(uri: str, tower: str, options: Options) -> Iterator[Item]:
    """The images of an output, or of one of its partitions (`OUTPUT/annotations/dt=YYYY-MM-DD`), that have an embedding of the tower.

    The tower is known by its digest. An item's `container` is the file of the table that holds the embedding, and its `position` the row.
    Raises UserError where there are none.
    """
    shown = without_secrets(uri)
    named = PARTITION.fullmatch(uri)
    output = OutputFolder(named["root"] if named else uri, options)
    runs = [run for run in past_runs(output) if named is None or run.date.isoformat() == named["date"]]
    if not runs:
        raise UserError(f"{shown} holds no committed run: name the --output of an earlier run, or a partition of it")
    fitting = [run for run in runs if run.config.get("keep_embeddings") and run.tower == tower]
    found = False
    for run in fitting:
        for file in run.files:
            for item in _items(output, file):
                found = True
                yield item
    if not found:
        raise UserError(f"{shown} holds no embeddings of this model's image tower: {_why(runs, tower)}")


def _why(runs: list[RunRecord], tower: str) -> str:
    kept = [run for run in runs if run.config.get("keep_embeddings")]
    if not kept:
        return f"none of its {len(runs)} runs was asked to --keep-embeddings"
    others = ", ".join(sorted({run.model for run in kept if run.tower != tower}))
    return f"those that it keeps are another tower's ({others})" if others else "no image of its runs could be annotated"


def _items(output: OutputFolder, file: str) -> Iterator[Item]:
    path = output.absolute(file)
    try:
        with output.open(file) as opened:
            position = 0
            for batch in pq.ParquetFile(opened, pre_buffer=True).iter_batches(columns=LISTED):
                columns = (batch.column(name).to_pylist() for name in LISTED)
                for image_id, uri, size, status in zip(*columns, strict=True):
                    if status == "ok":
                        yield Item(uri, size, "", path, position, None, image_id)
                    position += 1
    except (OSError, KeyError, pa.ArrowException) as error:
        raise unreadable(path, error) from None


def read_embedded(fs: fsspec.AbstractFileSystem, rows: pa.Table) -> pa.Table:
    """What the table says of a block's images (rows of the manifest, of `embedded_items`): the columns `IMAGE`, in the same order.

    Raises StorageError where a file is not the one that was listed any more.
    """
    found: list[pa.Table] = []
    containers, positions = rows["container"].to_pylist(), rows["position"].to_numpy()
    starts = [0, *(i for i in range(1, len(rows)) if containers[i] != containers[i - 1])]
    for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        try:
            with open_file(fs, containers[start]) as file:
                found += _at(pq.ParquetFile(file, pre_buffer=True), positions[start:end])
        except (OSError, KeyError, IndexError, pa.ArrowException) as error:
            raise StorageError(f"{containers[start]} can't be read ({_told(error)}): restore it; the same --run-id goes on") from None
    table = pa.concat_tables(found)
    if not table["image_id"].equals(rows["image_id"]):
        raise StorageError(f"{containers[0]} does not hold the rows any more that were listed: restore it; the same --run-id goes on")
    return table


def _at(parquet: pq.ParquetFile, positions: np.ndarray) -> Iterator[pa.Table]:
    """The rows at these positions, which rise; of each group of rows that has some, read once."""
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    ends = np.cumsum(sizes)
    groups = np.searchsorted(ends, positions, side="right")
    for group in np.unique(groups):
        within = positions[groups == group] - (ends[group] - sizes[group])
        rows = parquet.read_row_group(int(group), IMAGE, use_threads=False)
        together = within[-1] - within[0] + 1 == len(within)  # as most are: a slice is no copy
        yield rows.slice(within[0], len(within)) if together else rows.take(pa.array(within))


def embeddings_of(rows: pa.Table) -> np.ndarray:
    """The column of embeddings, float16 [rows, embedding_dim]."""
    column = rows["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(rows), -1)


def _told(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__
