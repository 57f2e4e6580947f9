"""The third operator: a block's rows to a file of their own, and what it says of them to the driver.

OUTPUT/_work/<run_id>/rows/block-00000000.parquet …: a file that is there is whole, and holds its block's rows. A task that
runs again writes the same rows to the same name, so nothing is ever in twice; and a run that is resumed does the blocks
that have no file. The design's first form used Ray's own checkpoint for this; the files already say what is done.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from io import BytesIO

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.stages.tracker import Board
from pipeline.storage.files import listed, write_atomic
from pipeline.storage.filesystem import Options, connect
from pipeline.table.schema import REPOST, STAGES, Tables, expect

WRITTEN = pa.schema(
    [
        pa.field("block", pa.int32()),
        pa.field("rows", pa.int64()),
        pa.field("ok", pa.int64()),  # or posted before: the commit knows how those went
        pa.field("status", pa.map_(pa.string(), pa.int64())),
        *(pa.field(f"{stage}_seconds", pa.float64()) for stage in STAGES),
    ]
)


def name(block: int) -> str:
    return f"block-{block:08d}.parquet"


def path(folder: str, block: int) -> str:
    return f"{folder}/{name(block)}"


def done(fs: fsspec.AbstractFileSystem, folder: str) -> dict[int, int]:
    """The blocks whose rows are written, in order, with the sizes of their files in bytes."""
    infos = listed(fs, folder, lambda: fs.ls(folder, detail=True) if fs.exists(folder) else [])
    found = ((re.search(r"/block-(\d{8})\.parquet$", info["name"]), info["size"]) for info in infos)
    return dict(sorted((int(match[1]), size) for match, size in found if match))


@dataclass(frozen=True)
class BlockWriter:
    """`Tables.annotated` -> `WRITTEN`, a row for every block."""

    output: str
    folder: str
    options: Options = field(repr=False)
    tables: Tables
    board: Board

    def __call__(self, table: pa.Table) -> pa.Table:
        expect(table, self.tables.annotated, "write")
        fs, _ = connect(self.output, self.options)
        written = []
        for block in pc.unique(table.column("block")).to_pylist():
            self.board.enter(block, "being written")
            rows = table.filter(pc.equal(table.column("block"), block))
            buffer = BytesIO()
            whole = rows.select(self.tables.written.names).cast(self.tables.written)
            pq.write_table(whole, buffer, compression="zstd", use_dictionary=self.tables.repeating)
            write_atomic(fs, path(self.folder, block), buffer.getvalue())
            self.board.leave(block)
            seconds = {f"{stage}_seconds": pc.sum(rows.column(f"{stage}_seconds")).as_py() for stage in STAGES}
            status = Counter(rows.column("status").to_pylist())
            ok = status["ok"] + status[REPOST]
            written.append({"block": block, "rows": len(rows), "ok": ok, "status": list(status.items()), **seconds})
        return pa.Table.from_pylist(written, WRITTEN)
