"""The first operator: a block's number to its images, fetched, decoded and cropped, with a status each.

Fetch and decode are one operator, so that compressed bytes never enter Ray's object store.
"""

import hashlib
import time
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipeline.board import Board
from pipeline.decode import Decoder, Limits
from pipeline.errors import ImageError
from pipeline.fetch import Fetcher
from pipeline.manifest import Manifest
from pipeline.sandbox import Sandbox
from pipeline.storage import Options, connect
from pipeline.table import Tables


@dataclass(frozen=True)
class Loader:
    """{block} -> `Tables.loaded`, one row for every image of the block, in the manifest's order."""

    output: str
    options: Options = field(repr=False)
    manifest: Manifest
    fetcher: Fetcher
    tables: Tables
    limits: Limits
    board: Board

    def __call__(self, numbers: pa.Table) -> pa.Table:
        (block,) = numbers.column("block").to_pylist()
        fs, _ = connect(self.output, self.options)
        rows = self.manifest.read(fs, block).to_pylist()
        crops = np.zeros((len(rows), self.tables.crop_bytes), np.uint8)
        records = []
        begun_before = self.board.begin(block)  # a worker that died over this block may have died of one of its images
        with Sandbox(self.limits) if begun_before else nullcontext(Decoder(self.limits)) as decoder:
            clock = time.perf_counter()
            for i, (row, data) in enumerate(self.fetcher.fetch(rows)):
                fetched = time.perf_counter()
                record = {"block": block, "image_id": row["image_id"], "uri": row["uri"], "status": "ok"}
                try:
                    if isinstance(data, ImageError):
                        raise data
                    record |= {"bytes": len(data), "content_hash": hashlib.sha256(data).hexdigest()}
                    decoded = decoder(data)
                    record |= {"width": decoded.width, "height": decoded.height}
                    crops[i] = decoded.crop.reshape(-1)
                except ImageError as error:
                    record |= {"status": error.status, "error": str(error) or error.status}
                done = time.perf_counter()
                # Fetching goes on in the background: what counts is how long decoding waited for it.
                records.append(record | {"fetch_seconds": fetched - clock, "decode_seconds": done - fetched})
                clock = done
        self.board.enter(block, "loaded, and not yet annotated")
        schema = self.tables.loaded
        columns = {name: [record.get(name) for record in records] for name in schema.names if name != "crop"}
        crop = pa.FixedSizeBinaryArray.from_buffers(schema.field("crop").type, len(rows), [None, pa.py_buffer(crops)])
        return pa.table([crop if f.name == "crop" else pa.array(columns[f.name], f.type) for f in schema], schema)
