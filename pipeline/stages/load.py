"""The first operator: fetches, decodes and crops the images of a block, each with a status.

Fetch and decode are one operator, so that compressed bytes never enter Ray's object store.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import ImageError
from pipeline.images.decode import Decoder, Limits
from pipeline.images.fetch import Fetcher
from pipeline.images.fetch_process import FetchProcess
from pipeline.images.sandbox import Sandbox
from pipeline.inputs.manifest import Manifest
from pipeline.stages.dedup import Deduplicator
from pipeline.stages.tracker import BlockTracker
from pipeline.stages.write import file_name
from pipeline.table.output_folder import OutputFolder
from pipeline.table.schema import REPOST, SUPPRESSED, Tables
from pipeline.table.suppressed import NOTHING, Suppressed

# Images, and their bytes, that are held while the deduplicator is asked for their owners.
MAX_CHUNK_IMAGES, MAX_CHUNK_BYTES = 32, 32 * 2**20
FIRST_CHUNK_IMAGES = 4

Fetched = tuple[dict[str, Any], bytes | ImageError]  # an image's row, with its bytes or what went wrong


@dataclass(frozen=True)
class Loader:
    """Operator from a block's number to `Tables.loaded`: one row for each row of the block, in the manifest's order.

    An image that several rows of the block name is fetched and annotated once: the other rows are duplicates of the first. An image that is
    `suppressed` is not fetched; one that turns out to be, by the hash of its bytes, is dropped.
    """

    output: OutputFolder
    manifest: Manifest
    fetcher: Fetcher
    tables: Tables
    limits: Limits
    tracker: BlockTracker
    dedup: Deduplicator
    suppressed: Suppressed = NOTHING

    def __call__(self, numbers: pa.Table) -> pa.Table:
        (block,) = numbers.column("block").to_pylist()
        rows = self.manifest.read(self.output, block).to_pylist()
        firsts: dict[int, int] = {}  # of each image, its first row
        for i, row in enumerate(rows):
            firsts.setdefault(row["image_id"], i)
        crops = np.zeros((len(rows), self.tables.crop_bytes), np.uint8)
        found: dict[int, dict[str, Any]] = {}  # by image
        begun_before = self.tracker.begin(block)
        # A worker that died over this block may have died of one of its images: they are then fetched and decoded in two other processes.
        fetcher = FetchProcess(self.fetcher, self.limits.memory) if begun_before else self.fetcher
        with Sandbox(self.limits) if begun_before else nullcontext(Decoder(self.limits)) as decoder:
            clock = time.perf_counter()
            for record, data in self._with_owners(block, self._wanted(block, [rows[i] for i in firsts.values()], found), fetcher):
                fetched = time.perf_counter()
                try:
                    if isinstance(data, ImageError):
                        raise data
                    if record["owner"] is None and record["status"] == "ok":
                        decoded = decoder(data)
                        record |= {"width": decoded.width, "height": decoded.height}
                        crops[firsts[record["image_id"]]] = decoded.crop.reshape(-1)
                except ImageError as error:
                    record |= {"status": error.status, "error": str(error) or error.status}
                done = time.perf_counter()
                # Fetching continues in the background: its seconds are those that decoding waited for it.
                found[record["image_id"]] = record | {"fetch_seconds": fetched - clock, "decode_seconds": done - fetched}
                clock = done
        self.tracker.enter(block, "loaded, and not yet annotated")
        records = [found[row["image_id"]] if firsts[row["image_id"]] == i else _again(found[row["image_id"]]) for i, row in enumerate(rows)]
        schema = self.tables.loaded
        columns = {name: [record.get(name) for record in records] for name in schema.names if name != "crop"}
        crop = pa.FixedSizeBinaryArray.from_buffers(schema.field("crop").type, len(rows), [None, pa.py_buffer(crops)])
        return pa.table([crop if f.name == "crop" else pa.array(columns[f.name], f.type) for f in schema], schema)

    def _wanted(self, block: int, rows: list[dict[str, Any]], found: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows of images to fetch; the records of the others, which are suppressed, are put into `found`."""
        named = self.suppressed.images(np.array([row["image_id"] for row in rows], np.int64), [row["uri"] for row in rows])
        for row in compress(rows, named):
            record = {"block": block, "image_id": row["image_id"], "uri": row["uri"], "status": SUPPRESSED, "owner": None}
            found[row["image_id"]] = record | {"fetch_seconds": 0.0, "decode_seconds": 0.0}
        return list(compress(rows, ~named))

    def _with_owners(self, block: int, rows: list[dict[str, Any]], fetcher: Fetcher | FetchProcess) -> Iterator[Fetched]:
        """Fetch the images. Yield each one's record, in which a duplicate names its `owner`, with its bytes or what went wrong.

        A worker that begins the block after another one died claims the same hashes and gets the same owners.
        """
        own: set[str] = set()
        for chunk in _chunks(rows, fetcher):
            hashes = {i: hashlib.sha256(data).hexdigest() for i, (_, data) in enumerate(chunk) if isinstance(data, bytes)}
            dropped = set(compress(hashes, self.suppressed.contents(list(hashes.values()))))
            hashes = {i: content_hash for i, content_hash in hashes.items() if i not in dropped}
            owners = dict(zip(hashes, self.dedup.owners(block, list(hashes.values())), strict=True))
            for i, (row, data) in enumerate(chunk):
                record = {"block": block, "image_id": row["image_id"], "uri": row["uri"], "status": "ok", "owner": None}
                if i in dropped:
                    record |= {"status": SUPPRESSED}
                elif isinstance(data, bytes):
                    owner = owners[i] or (file_name(block) if hashes[i] in own else None)
                    if owner is None:
                        own.add(hashes[i])
                    record |= {"bytes": len(data), "content_hash": hashes[i], "owner": owner, "status": "ok" if owner is None else REPOST}
                yield record, data


def _again(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of another row of an image: a duplicate, unless its bytes could not be read."""
    record = record | {"fetch_seconds": 0.0, "decode_seconds": 0.0}
    if "content_hash" not in record:
        return record
    owner = record["owner"] or file_name(record["block"])
    return record | {"owner": owner, "status": REPOST, "error": None, "width": None, "height": None}


def _chunks(rows: list[dict[str, Any]], fetcher: Fetcher | FetchProcess) -> Iterator[list[Fetched]]:
    """Fetch the images in chunks: small ones first, so that decoding begins early; none larger than what is fetched ahead."""
    largest = min(2 * fetcher.concurrency, MAX_CHUNK_IMAGES)
    images, chunk, size = FIRST_CHUNK_IMAGES, [], 0
    for row, data in fetcher.fetch(rows):
        chunk.append((row, data))
        size += len(data) if isinstance(data, bytes) else 0
        if len(chunk) >= min(images, largest) or size >= MAX_CHUNK_BYTES:
            yield chunk
            images, chunk, size = 2 * images, [], 0
    if chunk:
        yield chunk
