"""The manifest: every image of a run, once, in blocks. It is written before any work begins and never changes.

OUTPUT/_work/<run_id>/manifest/part-00000.parquet …; a row group is a block, the unit of work: fetched, annotated and written
as one. A block's number is its position, so that a run that is resumed makes the same blocks of the same images.

A URI's secrets, such as a link's signature, are in `link`, apart from the `uri` that rows and ids are made of. They are
gone with the manifest, when the run is committed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, islice

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.errors import UserError
from pipeline.source import Item
from pipeline.storage import open_file, write_atomic

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


@dataclass(frozen=True)
class Manifest:
    """Where a run's manifest lies, and its size."""

    folder: str
    rows: int
    block_rows: int

    @property
    def blocks(self) -> int:
        return -(-self.rows // self.block_rows)

    def rows_of(self, block: int) -> int:
        return min(self.block_rows, self.rows - block * self.block_rows)

    def read(self, fs: fsspec.AbstractFileSystem, block: int) -> pa.Table:
        """One block's images."""
        with open_file(fs, part(self.folder, block // BLOCKS_PER_FILE)) as file:
            return pq.ParquetFile(file).read_row_group(block % BLOCKS_PER_FILE)


def image_id(item: Item) -> int:
    """A stable key: the same URI (without its secrets) and version, the same id.

    xxh64 read as int64: two of a billion images share one in 40 runs.
    """
    return int(np.int64(np.uint64(xxhash.xxh64_intdigest(f"{item.uri}\0{item.version}".encode()))))


def part(folder: str, number: int) -> str:
    return f"{folder}/part-{number:05d}.parquet"


def write_manifest(fs: fsspec.AbstractFileSystem, folder: str, items: Iterable[Item], block_rows: int | None = None) -> Manifest:
    """Writes the images in blocks of `block_rows`, by default 256, or fewer so that a small run has some blocks too.

    An image that a table names twice is in once. Raises UserError where two different images share an id, which one of
    them would have to pay for.
    """
    unique = _once(items, {})
    if block_rows is None:
        beginning = list(islice(unique, MAX_BLOCK_ROWS * 16))
        block_rows = min(MAX_BLOCK_ROWS, max(16, -(-len(beginning) // 16)))
        unique = chain(beginning, unique)
    rows = 0
    for number, group in enumerate(_chunks(unique, block_rows * BLOCKS_PER_FILE)):
        table = pa.Table.from_pylist([_row(item) for item in group], SCHEMA)
        buffer = BytesIO()
        pq.write_table(table, buffer, row_group_size=block_rows, compression="zstd")
        write_atomic(fs, part(folder, number), buffer.getvalue())
        rows += len(group)
    return Manifest(folder, rows, block_rows)


def _row(item: Item) -> dict[str, object]:
    return {"image_id": image_id(item), **item._asdict()}


def _once(items: Iterable[Item], seen: dict[int, int]) -> Iterator[Item]:
    for item in items:
        key, other = image_id(item), xxhash.xxh3_64_intdigest(item.uri.encode())
        if key not in seen:
            seen[key] = other
            yield item
        elif seen[key] != other:
            raise UserError(
                f"{item.uri} has the same image_id as another image ({key}); annotate it in a run of its own, under another URI"
            )


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
