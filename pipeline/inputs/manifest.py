"""The manifest: every image of a run, once, in blocks. It is written before any work begins and never changes.

OUTPUT/_work/<run_id>/manifest/part-00000.parquet …: a row group is a block, the unit of work, which is fetched, annotated and written
as a whole. A block's number is its position, so a resumed run has the same blocks with the same images.

A URI's secrets, such as a link's signature, are in `link`; the `uri` that output rows and IDs are made of has none. The manifest is
deleted when the run is committed, and the secrets with it.

Where columns of the input are kept, it has a row for each of the input's rows, with two more columns: KEPT.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.inputs.item import Item, kept_rows
from pipeline.inputs.seen import Seen, SeenRows, hash_images, lookup
from pipeline.table.image_ids import NO_IDS
from pipeline.table.output_folder import OutputFolder, work_folder
from pipeline.table.schema import ROW_ID
from pipeline.table.suppressed import NOTHING, Suppressed

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string(), nullable=False),
        pa.field("container", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("link", pa.string()),
        pa.field("retried", pa.bool_(), nullable=False),  # failed in an earlier run
    ]
)
KEPT = [ROW_ID, "kept"]  # the row's ID, int64, and its kept values, a struct
BLOCKS_PER_FILE = 64
MAX_BLOCK_ROWS = 256
BATCH = 2**14  # images listed, hashed and looked up at once


@dataclass(frozen=True)
class Manifest:
    """A run's manifest: its folder within the output, and counts.

    `rows` is `listed` (different images) less `suppressed` (by the list of `--suppress`) and `known` (annotated before); `retried` of them
    failed before, the others are new.
    `left_out` counts by reason what the listing left out (`pipeline/storage/left_out.py`). `key` is the column by which rows are known:
    `row_id` where columns of the input are kept, and rows are counted, not images.
    """

    folder: str
    rows: int
    block_rows: int
    listed: int
    known: int
    retried: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    key: str = "image_id"
    suppressed: int = 0

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.block_rows)

    def rows_of(self, block: int) -> int:
        return min(self.block_rows, self.rows - block * self.block_rows)

    def rows_in(self, blocks: np.ndarray) -> np.ndarray:
        """Return the number of rows of each block, by numbers: int64."""
        return np.minimum(self.block_rows, self.rows - blocks * self.block_rows)

    def read(self, output: OutputFolder, block: int, columns: Sequence[str] = SCHEMA.names) -> pa.Table:
        """Read a block's rows: a table of SCHEMA, or these columns."""
        with output.open(part_path(self.folder, block // BLOCKS_PER_FILE)) as file:
            return pq.ParquetFile(file).read_row_group(block % BLOCKS_PER_FILE, list(columns))

    def blocks_within(self, output: OutputFolder, ids: np.ndarray) -> np.ndarray:
        """Return the numbers of the blocks all of whose rows have IDs in `ids` (int64, sorted): int64, sorted."""
        within = np.zeros(self.blocks, bool)
        for first in range(0, self.blocks if len(ids) else 0, BLOCKS_PER_FILE):
            with output.open(part_path(self.folder, first // BLOCKS_PER_FILE)) as file:
                part = pq.ParquetFile(file, pre_buffer=True)
                for group in range(part.num_row_groups):
                    own = part.read_row_group(group, [self.key], use_threads=False)[self.key].to_numpy()
                    within[first + group] = lookup(own, ids)[0].all()
        return np.flatnonzero(within)


def plan_path(run_id: str) -> str:
    """Return the path, within the output, of a run's plan, which states the manifest's name and size."""
    return f"{work_folder(run_id)}/plan.json"


def saved_manifest(run_id: str, plan: dict[str, Any]) -> Manifest:
    """Return the manifest that a run's plan states."""
    sizes = {name: plan[name] for name in ("rows", "block_rows", "listed", "known", "retried")}
    key = ROW_ID if plan.get("kept") else "image_id"
    others = {"left_out": plan.get("left_out", {}), "suppressed": plan.get("suppressed", 0)}
    return Manifest(f"{work_folder(run_id)}/{plan['manifest']}", **sizes, **others, key=key)


def image_id(item: Item) -> int:
    """Return the image's stable key: the same URI (without secrets) and version always have the same ID.

    In a listing, an image whose ID another one has gets a second ID (`pipeline.inputs.seen`).
    """
    return int(hash_images([item])[0][0])


def default_block_rows(rows: int) -> int:
    """Return how many rows a block has: 256, or fewer in a run of few rows, at least 16, so that it has several blocks too."""
    return min(MAX_BLOCK_ROWS, max(16, -(-rows // 16)))


def part_path(folder: str, number: int) -> str:
    return f"{folder}/part-{number:05d}.parquet"


def write_manifest(
    output: OutputFolder,
    folder: str,
    items: Iterable[Item],
    block_rows: int | None = None,
    known: np.ndarray = NO_IDS,
    limit: int | None = None,
    failed: np.ndarray = NO_IDS,
    suppressed: Suppressed = NOTHING,
) -> Manifest:
    """Write the images in blocks of `block_rows`, by default `default_block_rows`.

    Leaves out images that are `suppressed` by their IDs or URIs, those whose IDs are `known` (int64, sorted), those after the first `limit`
    others, and duplicates. Of the others, those whose IDs have `failed` (int64, sorted) are marked as retried. Where the items have kept
    values, all that holds for rows and their IDs.
    """
    counts: Counter[str] = Counter()
    tables = _rechunk(new_images(items, known, limit, counts, failed, suppressed), MAX_BLOCK_ROWS * 16)
    first = next(tables, SCHEMA.empty_table())
    key = ROW_ID if ROW_ID in first.column_names else "image_id"
    if block_rows is None:
        block_rows = default_block_rows(len(first))
    for number, table in enumerate(_rechunk(chain([first], tables), block_rows * BLOCKS_PER_FILE)):
        buffer = BytesIO()
        pq.write_table(table, buffer, row_group_size=block_rows, compression="zstd")
        output.write(part_path(folder, number), buffer.getvalue())
    rows = counts["listed"] - counts["known"] - counts["suppressed"]
    sizes = (rows, block_rows, counts["listed"], counts["known"], counts["retried"])
    return Manifest(folder, *sizes, key=key, suppressed=counts["suppressed"])


def new_images(
    items: Iterable[Item],
    known: np.ndarray,
    limit: int | None,
    counts: Counter[str],
    failed: np.ndarray = NO_IDS,
    suppressed: Suppressed = NOTHING,
) -> Iterator[pa.Table]:
    """Return tables (SCHEMA) of the images that are not `suppressed`, and whose IDs are not `known` (int64, sorted), up to `limit` of them.

    Each is in them once. Adds to `counts` how many different images were `listed`, how many of them are `suppressed`, how many of the
    others `known`, and how many of the rest are `retried`: their IDs are in `failed` (int64, sorted). Where the items have kept values
    (KEPT), all that holds for rows and their IDs.
    """
    items, seen, seen_rows, left = iter(items), Seen(), SeenRows(), limit
    while left != 0 and (batch := list(islice(items, BATCH if left is None else min(BATCH, max(left, 1024))))):
        images, first = seen.add(batch)
        ids, kept = images, None
        if batch[0].kept is not None:
            kept = kept_rows(batch)
            ids, first = seen_rows.add(batch, images, kept)
        left_out = first & suppressed.images(images, [item.uri for item in batch]) if suppressed else np.zeros(len(batch), bool)
        annotated = first & ~left_out & lookup(ids, known)[0]
        new = np.flatnonzero(first & ~left_out & ~annotated)
        if left is not None:
            if len(new) >= left:  # do not count what follows the last image wanted
                end = new[left - 1] + 1
                first, left_out, annotated, new = first[:end], left_out[:end], annotated[:end], new[:left]
            left -= len(new)
        counts.update(listed=int(first.sum()), suppressed=int(left_out.sum()), known=int(annotated.sum()))
        if len(new):
            retried = lookup(ids[new], failed)[0]
            counts["retried"] += int(retried.sum())
            columns = zip(*(batch[i][:6] for i in new), strict=True)  # SCHEMA has the first fields of Item in order
            table = pa.table([pa.array(images[new]), *map(pa.array, columns, SCHEMA.types[1:-1]), pa.array(retried)], SCHEMA)
            yield table if kept is None else _with_kept(table, ids[new], kept.take(new))


def _with_kept(table: pa.Table, ids: np.ndarray, kept: pa.Table) -> pa.Table:
    """Add the columns KEPT to rows of SCHEMA."""
    kept = kept.select([name for name in kept.column_names if name != ROW_ID])
    struct = pa.StructArray.from_arrays([column.combine_chunks() for column in kept.columns], fields=list(kept.schema))
    return table.append_column(KEPT[0], pa.array(ids)).append_column(KEPT[1], struct)


def _rechunk(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Return the same rows in tables of `rows` rows; the last may have fewer."""
    rest: pa.Table = pa.table({})
    for table in tables:
        rest = pa.concat_tables([rest, table]) if len(rest) else table
        while len(rest) >= rows:
            yield rest[:rows]
            rest = rest[rows:]
    if len(rest):
        yield rest
