"""The manifest: every image of a run, once, in blocks. It is written before any work begins and never changes.

OUTPUT/_work/<run_id>/manifest/part-00000.parquet …: a row group is a block, the unit of work, which is fetched, annotated and written
as a whole. A block's number is its position, so a resumed run has the same blocks with the same images.

A URI's secrets, such as a link's signature, are in `link`; the `uri` that output rows and IDs are made of has none. The manifest is
deleted when the run is committed, and the secrets with it.
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
import xxhash

from pipeline.inputs.item import Item
from pipeline.inputs.seen import Seen, lookup
from pipeline.table.output_folder import OutputFolder, work_folder

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("version", pa.string(), nullable=False),
        pa.field("container", pa.string()),
        pa.field("position", pa.int64()),
        pa.field("link", pa.string()),
    ]
)
BLOCKS_PER_FILE = 64
MAX_BLOCK_ROWS = 256
BATCH = 2**14  # images listed, hashed and looked up at once
NO_IDS = np.empty(0, np.int64)


@dataclass(frozen=True)
class Manifest:
    """A run's manifest: its folder within the output, and counts. `rows` is `listed` (different images) less `known` (annotated before).

    `left_out` counts by reason what the listing left out (`pipeline/storage/left_out.py`).
    """

    folder: str
    rows: int
    block_rows: int
    listed: int
    known: int
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.block_rows)

    def rows_of(self, block: int) -> int:
        return min(self.block_rows, self.rows - block * self.block_rows)

    def read(self, output: OutputFolder, block: int) -> pa.Table:
        """Read a block's images, as a table of SCHEMA."""
        with output.open(part_path(self.folder, block // BLOCKS_PER_FILE)) as file:
            return pq.ParquetFile(file).read_row_group(block % BLOCKS_PER_FILE)


def plan_path(run_id: str) -> str:
    """Return the path, within the output, of a run's plan, which states the manifest's name and size."""
    return f"{work_folder(run_id)}/plan.json"


def saved_manifest(run_id: str, plan: dict[str, Any]) -> Manifest:
    """Return the manifest that a run's plan states."""
    sizes = {name: plan[name] for name in ("rows", "block_rows", "listed", "known")}
    return Manifest(f"{work_folder(run_id)}/{plan['manifest']}", **sizes, left_out=plan.get("left_out", {}))


def image_id(item: Item) -> int:
    """Return the image's stable key: the same URI (without secrets) and version always have the same ID.

    It is their xxh64 hash as int64: among a billion images, two share an ID in one of 40 runs.
    """
    return int(_ids([item])[0])


def _ids(items: Sequence[Item]) -> np.ndarray:
    if items and items[0].image_id is not None:
        return np.fromiter((item.image_id for item in items), np.int64, len(items))
    digests = (xxhash.xxh64_intdigest(f"{item.uri}\0{item.version}".encode()) for item in items)
    return np.fromiter(digests, np.uint64, len(items)).view(np.int64)


def part_path(folder: str, number: int) -> str:
    return f"{folder}/part-{number:05d}.parquet"


def write_manifest(
    output: OutputFolder,
    folder: str,
    items: Iterable[Item],
    block_rows: int | None = None,
    known: np.ndarray = NO_IDS,
    limit: int | None = None,
) -> Manifest:
    """Write the images in blocks of `block_rows`: by default 256, or fewer, at least 16, so that a small run has several blocks too.

    Leaves out images whose IDs are `known` (int64, sorted), those after the first `limit` new ones, and duplicates.
    Raises UserError where two different images share an ID: one of them would be lost.
    """
    counts: Counter[str] = Counter()
    tables = _rechunk(new_images(items, known, limit, counts), MAX_BLOCK_ROWS * 16)
    first = next(tables, SCHEMA.empty_table())
    if block_rows is None:
        block_rows = min(MAX_BLOCK_ROWS, max(16, -(-len(first) // 16)))
    for number, table in enumerate(_rechunk(chain([first], tables), block_rows * BLOCKS_PER_FILE)):
        buffer = BytesIO()
        pq.write_table(table, buffer, row_group_size=block_rows, compression="zstd")
        output.write(part_path(folder, number), buffer.getvalue())
    return Manifest(folder, counts["listed"] - counts["known"], block_rows, counts["listed"], counts["known"])


def new_images(items: Iterable[Item], known: np.ndarray, limit: int | None, counts: Counter[str]) -> Iterator[pa.Table]:
    """Return tables (SCHEMA) of the images whose IDs are not `known` (int64, sorted), each once, up to `limit` of them.

    Adds to `counts` how many different images were `listed`, and how many of them are `known`.
    """
    items, seen, left = iter(items), Seen(), limit
    while left != 0 and (batch := list(islice(items, BATCH if left is None else min(BATCH, max(left, 1024))))):
        ids = _ids(batch)
        first = seen.add(ids, batch)
        annotated = first & lookup(ids, known)[0]
        new = np.flatnonzero(first & ~annotated)
        if left is not None:
            if len(new) >= left:  # do not count what follows the last image wanted
                end = new[left - 1] + 1
                first, annotated, new = first[:end], annotated[:end], new[:left]
            left -= len(new)
        counts.update(listed=int(first.sum()), known=int(annotated.sum()))
        if len(new):
            columns = zip(*(batch[i][:-1] for i in new), strict=True)  # SCHEMA has the fields of Item in order, but for the ID
            yield pa.table([pa.array(ids[new]), *map(pa.array, columns, SCHEMA.types[1:])], SCHEMA)


def _rechunk(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Return the same rows in tables of `rows` rows; the last may have fewer."""
    rest = SCHEMA.empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table])
        while len(rest) >= rows:
            yield rest[:rows]
            rest = rest[rows:]
    if len(rest):
        yield rest
