"""The first operator: a block's number to its images, fetched, decoded and cropped, with a status each.

Fetch and decode are one operator, so that compressed bytes never enter Ray's object store.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import ImageError
from pipeline.images.decode import Decoder, Limits
from pipeline.images.fetch import Fetcher
from pipeline.images.sandbox import Sandbox
from pipeline.inputs.manifest import Manifest
from pipeline.stages.dedup import Reposts
from pipeline.stages.tracker import Board
from pipeline.stages.write import file_name
from pipeline.table.output_folder import OutputFolder
from pipeline.table.schema import REPOST, Tables

MOST_IMAGES, MOST_BYTES = 32, 32 * 2**20  # whose bytes are held while it is asked whether they were posted before


@dataclass(frozen=True)
class Loader:
    """{block} -> `Tables.loaded`, one row for every image of the block, in the manifest's order."""

    output: OutputFolder
    manifest: Manifest
    fetcher: Fetcher
    tables: Tables
    limits: Limits
    board: Board
    reposts: Reposts

    def __call__(self, numbers: pa.Table) -> pa.Table:
        (block,) = numbers.column("block").to_pylist()
        rows = self.manifest.read(self.output, block).to_pylist()
        crops = np.zeros((len(rows), self.tables.crop_bytes), np.uint8)
        records: list[dict[str, Any]] = []
        begun_before = self.board.begin(block)  # a worker that died over this block may have died of one of its images
        with Sandbox(self.limits) if begun_before else nullcontext(Decoder(self.limits)) as decoder:
            clock = time.perf_counter()
            for record, data in self._fetched(block, rows):
                fetched = time.perf_counter()
                try:
                    if isinstance(data, ImageError):
                        raise data
                    if record["owner"] is None:
                        decoded = decoder(data)
                        record |= {"width": decoded.width, "height": decoded.height}
                        crops[len(records)] = decoded.crop.reshape(-1)
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

    def _fetched(self, block: int, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes | ImageError]]:
        """Each image's record, with its bytes or what went wrong. Of bytes that came before, it names the `owner`.

        A worker that takes the block up after another died asks for the same bytes and is told the same.
        """
        done: set[str] = set()
        for some in self._together(rows):
            hashes = {i: hashlib.sha256(data).hexdigest() for i, (_, data) in enumerate(some) if isinstance(data, bytes)}
            owners = dict(zip(hashes, self.reposts.owners(block, list(hashes.values())), strict=True))
            for i, (row, data) in enumerate(some):
                record = {"block": block, "image_id": row["image_id"], "uri": row["uri"], "status": "ok", "owner": None}
                if isinstance(data, bytes):
                    owner = owners[i] or (file_name(block) if hashes[i] in done else None)
                    if owner is None:
                        done.add(hashes[i])
                    record |= {"bytes": len(data), "content_hash": hashes[i], "owner": owner, "status": "ok" if owner is None else REPOST}
                yield record, data

    def _together(self, rows: list[dict[str, Any]]) -> Iterator[list[tuple[dict[str, Any], bytes | ImageError]]]:
        """What is fetched, some images at a time: first few, so that decoding begins; then more, but no more than are fetched ahead."""
        most, limit, some, size = 4, min(2 * self.fetcher.concurrency, MOST_IMAGES), [], 0
        for row, data in self.fetcher.fetch(rows):
            some.append((row, data))
            size += len(data) if isinstance(data, bytes) else 0
            if len(some) >= min(most, limit) or size >= MOST_BYTES:
                yield some
                most, some, size = 2 * most, [], 0
        if some:
            yield some
