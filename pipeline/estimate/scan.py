"""Scans an input without starting a run: counts its new images, their bytes and duplicates, and draws a random sample of them."""

import datetime as dt
import hashlib
import heapq
import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import AnnotateConfig
from pipeline.inputs.manifest import SCHEMA, new_images
from pipeline.run.begin import NEW_OUTPUT
from pipeline.run.earlier import images_of
from pipeline.sources.source import list_items
from pipeline.table.image_ids import union
from pipeline.table.kept_columns import Keep
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import Counts, current_runs
from pipeline.table.schema import Tables
from pipeline.table.suppressed import NOTHING, read_list
from pipeline.table_formats import table_format

MD5 = re.compile(r"[0-9a-f]{32}")  # an ETag that is the content's MD5; a multipart upload's is not
MAX_RUNS = 5  # earlier runs that `repost_share` is taken from


@dataclass(frozen=True)
class InputScan:
    """The images that a run would list and annotate. `sample` holds manifest rows of new images, drawn uniformly at random."""

    listed: int
    known: int
    left_out: dict[str, int]  # what the listing left out, by reason
    retried: int  # failed in an earlier run
    new: int  # all others, the retried among them
    bytes: int  # of new images whose size the listing states
    sized: int  # new images whose size the listing states
    copies: int | None  # new images with the size and MD5 of another new one; None if the storage states no MD5s
    in_files: int  # new images within a file: a member of a .tar, a row of a table
    repost_share: float | None  # share of duplicates in the rows of the last runs; None without rows
    sample: list[dict[str, Any]]
    kept: dict[str, str]  # the types of the columns kept from the input, by their names; where there are some, rows are counted
    suppressed: int = 0  # on the list of --suppress, by their URIs or IDs


def scan_input(config: AnnotateConfig, tables: Tables, size: int, seed: int = 0) -> InputScan:
    """List the input and draw `size` of its new images. Nothing is written. Raises UserError."""
    suppressed = read_list(config.suppress, config.storage_options)[1] if config.suppress else NOTHING
    output = OutputFolder(config.output, config.storage_options)
    left_out: Counter[str] = Counter()
    keep = Keep(config.keep_columns)
    source = list_items(config.input, config.column, config.storage_options, left_out, config.output, keep)
    source = chain([next(source)], source)
    if keep:
        table_format.check(config, replace(tables, kept=keep.types))
    runs = current_runs(output, NEW_OUTPUT)
    past = images_of(output, config, tables, runs, dt.datetime.now(dt.UTC))
    counts: Counter[str] = Counter()
    sample, hashes = RandomSample(size, np.random.default_rng(seed)), list[np.ndarray]()
    for table in new_images(source, past.annotated, config.limit, counts, past.failed, suppressed):
        sizes = table["size"].drop_null()
        counts.update(bytes=int(np.sum(sizes.to_numpy())), sized=len(sizes))
        counts.update(in_files=len(table) - table["container"].null_count)
        hashes.append(_content_hashes(table))
        sample.add(table.select(SCHEMA.names))
    keep.check_found(config.public()["input"])
    hashed = sum(map(len, hashes))
    return InputScan(
        listed=counts["listed"],
        known=counts["known"],
        left_out=dict(left_out),
        retried=counts["retried"],
        new=counts["listed"] - counts["known"] - counts["suppressed"],
        bytes=counts["bytes"],
        sized=counts["sized"],
        copies=hashed - len(union(hashes)) if hashed else None,
        in_files=counts["in_files"],
        repost_share=_repost_share([run.counts for run in runs if run.model == tables.model][:MAX_RUNS]),
        sample=sample.rows,
        kept={field.name: str(field.type) for field in keep.types},
        suppressed=counts["suppressed"],
    )


class RandomSample:
    """A uniform sample without replacement of a stream of rows: each row draws a random number, and the lowest `size` are kept."""

    def __init__(self, size: int, rng: np.random.Generator):
        self.size, self.rng = size, rng
        self.seen = 0
        self._kept: list[tuple[float, int, dict[str, Any]]] = []  # random number, position in the stream, row

    def add(self, table: pa.Table) -> None:
        numbers = self.rng.random(len(table))
        lowest = np.argsort(numbers)[: self.size]
        rows = table.take(pa.array(lowest)).to_pylist()
        drawn = [(numbers[i], self.seen + int(i), row) for i, row in zip(lowest, rows, strict=True)]
        self._kept = heapq.nsmallest(self.size, [*self._kept, *drawn])
        self.seen += len(table)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The sample, in the order of the stream."""
        return [row for _, _, row in sorted(self._kept, key=lambda entry: entry[1])]


def _content_hashes(table: pa.Table) -> np.ndarray:
    """Return a hash of size and MD5, int64, for each image that is an object of its own and whose version is an MD5."""
    rows = zip(table["size"].to_pylist(), table["version"].to_pylist(), table["container"].to_pylist(), strict=True)
    texts = (f"{size}\0{version}" for size, version, container in rows if container is None and MD5.fullmatch(version))
    return np.frombuffer(b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts), np.int64)


def _repost_share(counts: list[Counts]) -> float | None:
    rows = sum(count.rows for count in counts)
    reposts = sum(count.reposts.total for count in counts)
    return reposts / rows if rows else None
