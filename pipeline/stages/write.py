"""The third operator: writes a block's rows to a file, and reports its counts and times to the driver.

OUTPUT/_work/<run_id>/rows/block-00000000.parquet and so on. A file that exists is complete and holds its block's rows. A task that
runs again writes the same rows to the same name, so no row is written twice; a resumed run does the blocks that have no file.
"""

import re
from collections import Counter
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.stages.tracker import BlockTracker
from pipeline.table.output_folder import OutputFolder, work_folder
from pipeline.table.schema import REPOST, STAGES, SUPPRESSED, Tables, expect

WRITTEN = pa.schema(
    [
        pa.field("block", pa.int32()),
        pa.field("rows", pa.int64()),
        pa.field("ok", pa.int64()),  # and those that the commit copies or leaves out: duplicates, suppressed images
        pa.field("status", pa.map_(pa.string(), pa.int64())),
        *(pa.field(f"{stage}_seconds", pa.float64()) for stage in STAGES),
    ]
)


def file_name(block: int) -> str:
    return f"block-{block:08d}.parquet"


def rows_folder(run_id: str) -> str:
    """Return the folder of a run's blocks within the output."""
    return f"{work_folder(run_id)}/rows"


def block_sizes(output: OutputFolder, folder: str, blocks: int) -> np.ndarray:
    """Return the size in bytes of each block's file, by the block's number: int64; -1 where the block's rows are not written."""
    sizes = np.full(blocks, -1, np.int64)
    for file in output.files(folder):
        match = re.search(r"/block-(\d{8})\.parquet$", file.name)
        if match and (number := int(match[1])) < blocks:
            sizes[number] = file.size or 0
    return sizes


@dataclass(frozen=True)
class BlockWriter:
    """Operator that writes `Tables.annotated` to `folder` within the output. It returns `WRITTEN`, a row for each block."""

    output: OutputFolder
    folder: str
    tables: Tables
    tracker: BlockTracker

    def __call__(self, table: pa.Table) -> pa.Table:
        expect(table, self.tables.annotated, "write")
        written = []
        for block in pc.unique(table.column("block")).to_pylist():
            self.tracker.enter(block, "being written")
            rows = table.filter(pc.equal(table.column("block"), block))
            buffer = BytesIO()
            file_rows = rows.select(self.tables.written.names).cast(self.tables.written)
            pq.write_table(file_rows, buffer, compression="zstd", use_dictionary=self.tables.repeating)
            self.output.write(f"{self.folder}/{file_name(block)}", buffer.getvalue())
            self.tracker.leave(block)
            seconds = {f"{stage}_seconds": pc.sum(rows.column(f"{stage}_seconds")).as_py() for stage in STAGES}
            status = Counter(rows.column("status").to_pylist())
            ok = status["ok"] + status[REPOST] + status[SUPPRESSED]
            written.append({"block": block, "rows": len(rows), "ok": ok, "status": list(status.items()), **seconds})
        return pa.Table.from_pylist(written, WRITTEN)
