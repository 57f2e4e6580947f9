"""What an input holds and how much of it is new to the output, without beginning a run: counts, bytes, copies, some images at random."""

import heapq
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.config import AnnotateConfig
from pipeline.inputs.manifest import new_images
from pipeline.inputs.source import items
from pipeline.run.plan import annotated
from pipeline.table.image_ids import union
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import Counts, past_runs
from pipeline.table.schema import Tables

MD5 = re.compile(r"[0-9a-f]{32}")  # an ETag that is the content's hash; that of an upload in parts is none
NIGHTS = 5


@dataclass(frozen=True)
class Survey:
    """What a night would find. `sample` are manifest rows of new images, drawn at random, each as likely as any other."""

    listed: int
    known: int
    new: int
    bytes: int  # of the new images whose size the listing told
    sized: int  # how many those are
    copies: int | None  # new images with the size and hash of another new one; None where the storage tells no hashes
    in_files: int  # new images that lie within a file: a member of a .tar, a row of a table
    repost_share: float | None  # of the rows that the last nights wrote; None where there were none
    sample: list[dict[str, Any]]


def survey(config: AnnotateConfig, tables: Tables, size: int, seed: int = 0) -> Survey:
    """Lists the input, draws `size` of its new images, and writes nothing. Raises UserError."""
    output = OutputFolder(config.output, config.storage_options)
    source = items(config.input, config.column, config.storage_options)
    known = annotated(output, config, tables.model, [scheme.name for scheme in tables.schemes])
    counts: Counter[str] = Counter()
    draw, drawn = np.random.default_rng(seed), list[tuple[float, int, dict[str, Any]]]()
    hashes: list[np.ndarray] = []
    place = 0
    for table in new_images(source, known, config.limit, counts):
        sizes = table["size"].drop_null()
        counts.update(bytes=int(np.sum(sizes.to_numpy())), sized=len(sizes))
        counts.update(in_files=len(table) - table["container"].null_count)
        hashes.append(_hashes(table))
        drawn = _drawn(drawn, table, draw.random(len(table)), place, size)
        place += len(table)
    told = sum(map(len, hashes))
    return Survey(
        listed=counts["listed"],
        known=counts["known"],
        new=counts["listed"] - counts["known"],
        bytes=counts["bytes"],
        sized=counts["sized"],
        copies=told - len(union(hashes)) if told else None,
        in_files=counts["in_files"],
        repost_share=_repost_share([run.counts for run in past_runs(output, tables.model)[:NIGHTS]]),
        sample=[row for _, _, row in sorted(drawn, key=lambda entry: entry[1])],
    )


def _hashes(table: pa.Table) -> np.ndarray:
    """int64: a hash of size and content for each image of its own whose version is its content's hash."""
    rows = zip(table["size"].to_pylist(), table["version"].to_pylist(), table["container"].to_pylist(), strict=True)
    told = (f"{size}\0{version}" for size, version, container in rows if container is None and MD5.fullmatch(version))
    return np.fromiter((xxhash.xxh64_intdigest(text.encode()) for text in told), np.uint64).view(np.int64)


def _drawn(drawn: list, table: pa.Table, lots: np.ndarray, place: int, size: int) -> list:
    """Those with the lowest lots so far: (lot, place among the new images, row). The table's first is at `place`."""
    lowest = np.argsort(lots)[:size]
    rows = table.take(pa.array(lowest)).to_pylist()
    return heapq.nsmallest(size, [*drawn, *((lots[i], place + int(i), row) for i, row in zip(lowest, rows, strict=True))])


def _repost_share(counts: list[Counts]) -> float | None:
    rows = sum(count.rows for count in counts)
    copied = sum(count.reposts.total for count in counts)
    return copied / rows if rows else None
