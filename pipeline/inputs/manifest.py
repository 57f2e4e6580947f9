"""The manifest: every image that a run annotates, once, in blocks. It is written before any work begins and never changes.

OUTPUT/_work/<run_id>/manifest/part-00000.parquet …; a row group is a block, the unit of work: fetched, annotated and written
as one. A block's number is its position, so that a run that is resumed makes the same blocks of the same images.

A URI's secrets, such as a link's signature, are in `link`, apart from the `uri` that rows and ids are made of. They are
gone with the manifest, when the run is committed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.errors import UserError
from pipeline.inputs.source import Item
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
BATCH = 2**14  # images that are looked at at once
NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Manifest:
    """A run's manifest: its folder within the output, and its size. `rows` are the images listed, less those `known` before."""

    folder: str
    rows: int
    block_rows: int
    listed: int
    known: int

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.block_rows)

    def rows_of(self, block: int) -> int:
        return min(self.block_rows, self.rows - block * self.block_rows)

    def read(self, output: OutputFolder, block: int) -> pa.Table:
        """Return one block's images."""
        with output.open(part(self.folder, block // BLOCKS_PER_FILE)) as file:
            return pq.ParquetFile(file).read_row_group(block % BLOCKS_PER_FILE)


def plan_path(run_id: str) -> str:
    """Return where a run's plan lies within the output, which states the manifest's name and size."""
    return f"{work_folder(run_id)}/plan.json"


def saved_manifest(run_id: str, plan: dict[str, Any]) -> Manifest:
    """Return the manifest that a run's plan states."""
    sizes = {name: plan[name] for name in ("rows", "block_rows", "listed", "known")}
    return Manifest(f"{work_folder(run_id)}/{plan['manifest']}", **sizes)


def image_id(item: Item) -> int:
    """A stable key: the same URI (without its secrets) and version, the same id.

    xxh64 read as int64: two of a billion images share one in 40 runs.
    """
    return int(_ids([item])[0])


def _ids(items: Sequence[Item]) -> np.ndarray:
    if items and items[0].image_id is not None:
        return np.fromiter((item.image_id for item in items), np.int64, len(items))
    digests = (xxhash.xxh64_intdigest(f"{item.uri}\0{item.version}".encode()) for item in items)
    return np.fromiter(digests, np.uint64, len(items)).view(np.int64)


def part(folder: str, number: int) -> str:
    return f"{folder}/part-{number:05d}.parquet"


def write_manifest(
    output: OutputFolder,
    folder: str,
    items: Iterable[Item],
    block_rows: int | None = None,
    known: np.ndarray = NONE,
    limit: int | None = None,
) -> Manifest:
    """Writes the images in blocks of `block_rows`, by default of 256, or fewer so that a small run has some blocks too.

    Those whose ids are `known` (int64, sorted) are left out, and so is what comes after the first `limit` of the others. An image that
    a table names twice is in once. Raises UserError where two different images share an id, which one of them would have to pay for.
    """
    counts: Counter[str] = Counter()
    pieces = _pieces(new_images(items, known, limit, counts), MAX_BLOCK_ROWS * 16)
    first = next(pieces, SCHEMA.empty_table())
    if block_rows is None:
        block_rows = min(MAX_BLOCK_ROWS, max(16, -(-len(first) // 16)))
    for number, table in enumerate(_pieces(chain([first], pieces), block_rows * BLOCKS_PER_FILE)):
        buffer = BytesIO()
        pq.write_table(table, buffer, row_group_size=block_rows, compression="zstd")
        output.write(part(folder, number), buffer.getvalue())
    return Manifest(folder, counts["listed"] - counts["known"], block_rows, counts["listed"], counts["known"])


def _pieces(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size`, the last of which may be smaller."""
    waiting = SCHEMA.empty_table()
    for table in tables:
        waiting = pa.concat_tables([waiting, table])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if len(waiting):
        yield waiting


def new_images(items: Iterable[Item], known: np.ndarray, limit: int | None, counts: Counter[str]) -> Iterator[pa.Table]:
    """The images that are not known, each once. Counts how many different ones were `listed`, and how many of them are `known`."""
    items, seen, left = iter(items), Seen(), limit
    while left != 0 and (batch := list(islice(items, BATCH if left is None else min(BATCH, max(left, 1024))))):
        ids = _ids(batch)
        first = seen.add(ids, batch)
        before = first & _among(ids, known)[0]
        new = np.flatnonzero(first & ~before)
        if left is not None:
            if len(new) >= left:
                last = new[left - 1] + 1
                first, before, new = first[:last], before[:last], new[:left]
            left -= len(new)
        counts.update(listed=int(first.sum()), known=int(before.sum()))
        columns = zip(*(batch[i][:-1] for i in new), strict=True)
        if len(new):
            yield pa.table([pa.array(ids[new]), *map(pa.array, columns, SCHEMA.types[1:])], SCHEMA)


class Seen:
    """The ids there were so far, with a second hash of each URI: 16 bytes an image, in sorted arrays.

    There are few arrays, since one that is not smaller than half of the one before it is merged with it: an image is looked up, and
    moved, a dozen times among millions.
    """

    def __init__(self) -> None:
        self.runs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, ids: np.ndarray, items: Sequence[Item]) -> np.ndarray:
        """Which of the images were not there before, as booleans. Raises UserError where another image has one's id."""
        uris = np.fromiter((xxhash.xxh3_64_intdigest(item.uri.encode()) for item in items), np.uint64, len(items))
        order = np.argsort(ids, kind="stable")
        ids, uris = ids[order], uris[order]
        again = np.append(False, ids[1:] == ids[:-1])
        other = again & np.append(False, uris[1:] != uris[:-1])
        for run_ids, run_uris in self.runs:
            there, places = _among(ids, run_ids)
            again |= there
            other |= there & (run_uris[places] != uris)
        if other.any():
            i = int(np.flatnonzero(other)[0])
            uri = items[order[i]].uri
            raise UserError(f"{uri} has the same image_id as another image ({ids[i]}); annotate it in a run of its own, under another URI")
        if not again.all():
            self.runs.append((ids[~again], uris[~again]))
        while len(self.runs) > 1 and 2 * len(self.runs[-1][0]) >= len(self.runs[-2][0]):
            ids, uris = (np.concatenate(both) for both in zip(*self.runs[-2:], strict=True))
            merged = np.argsort(ids, kind="stable")  # fast, of two sorted arrays
            self.runs[-2:] = [(ids[merged], uris[merged])]
        first = np.empty(len(order), bool)
        first[order] = ~again
        return first


def _among(ids: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which ids are in a sorted array, and where in it they are."""
    if not len(others):
        return np.zeros(len(ids), bool), np.zeros(len(ids), int)
    places = np.minimum(np.searchsorted(others, ids), len(others) - 1)
    return others[places] == ids, places
