"""Some of the rows of committed runs, read for their page: random groups of rows, by column, the same ones each time."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from pipeline.report.highlights import Pick, Shelf, merged, picks_of
from pipeline.storage.parallel import mapped
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord
from pipeline.table.schema import SchemeMetadata
from ugrie.schemes.contradictions import contradicting

ROWS = 200_000  # that are read at most, or one group of rows
BINS = 20  # of a histogram of probabilities
GRID = 30  # cells of a side of the density of valence and arousal
EXAMPLES = 3  # of the images that failed with one message
MESSAGES = 1000  # of a status that are told apart
THREADS = 16  # which wait for storage, most of the time


@dataclass(frozen=True)
class Part:
    """A file of a run: `first` is the number of its first row within the run, whose place in the list of runs is `run`."""

    run: int
    path: str
    first: int
    metadata: pq.FileMetaData

    @property
    def schemes(self) -> dict[str, SchemeMetadata]:
        stated = json.loads(self.metadata.metadata[b"ugrie"])["schemes"]
        return {name: SchemeMetadata(**about) for name, about in stated.items()}

    def first_of(self, group: int) -> int:
        return self.first + sum(self.metadata.row_group(i).num_rows for i in range(group))


@dataclass
class Failure:
    """How many images failed with one message, and some of them."""

    count: int = 0
    uris: list[str] = field(default_factory=list)


@dataclass
class Excerpt:
    """What was seen in `rows` of the `total` rows. Counts are of images whose status is ok.

    `confidence`, int [BINS] by scheme, are the probabilities of the labels written; `density`, int [GRID, GRID], is by valence and
    arousal, or None. `contradictions` are images by pair of schemes, `failures` are by status and message.
    """

    total: int
    rows: int = 0
    ok: int = 0
    schemes: dict[str, SchemeMetadata] = field(default_factory=dict)
    confidence: dict[str, np.ndarray] = field(default_factory=dict)
    density: np.ndarray | None = None
    contradictions: dict[str, int] = field(default_factory=dict)
    failures: dict[str, dict[str, Failure]] = field(default_factory=dict)
    shelves: dict[Shelf, list[Pick]] = field(default_factory=dict)

    def add(self, table: pa.Table, run: int, first: int) -> None:
        """Rows of one run, the first of which is its row `first`."""
        self.rows += len(table)
        table = table.append_column("row", pa.array(np.arange(first, first + len(table))))
        good = pc.equal(table["status"], "ok")
        self._note(table.filter(pc.invert(good)))
        ok = table.filter(good).combine_chunks()
        self.ok += len(ok)
        if not len(ok):
            return
        here = {name: about for name, about in self.schemes.items() if name in ok.column_names}
        probs = {name: _probs(ok[name]).reshape(-1, len(about.labels)) for name, about in here.items()}
        choices = {name: _choices(ok[name], about, probs[name]) for name, about in here.items()}
        for name in here:
            written = np.take_along_axis(probs[name], choices[name][:, None], 1)[:, 0]
            bins = np.clip((written * BINS).astype(int), 0, BINS - 1)
            self.confidence[name] = self.confidence.get(name, 0) + np.bincount(bins, minlength=BINS)
        polarities = {name: about.polarities for name, about in here.items() if about.polarities}
        for pair, images in contradicting(polarities, choices).items():
            self.contradictions[pair] = self.contradictions.get(pair, 0) + int(images.sum())
        self._map(ok, here)
        for shelf, picks in picks_of(ok, here, probs, choices, run).items():
            self.shelves[shelf] = merged(self.shelves.get(shelf, []), picks)

    def _note(self, failed: pa.Table) -> None:
        for row in failed.select(["status", "error", "uri"]).to_pylist():
            messages = self.failures.setdefault(row["status"], {})
            message = row["error"] or ""
            if message in messages or len(messages) < MESSAGES:
                failure = messages.setdefault(message, Failure())
                failure.count += 1
                if len(failure.uris) < EXAMPLES:
                    failure.uris.append(row["uri"])

    def _map(self, ok: pa.Table, here: Mapping[str, SchemeMetadata]) -> None:
        ranges = [here[name].range for name in ("valence", "arousal") if name in here]
        if len(ranges) < 2 or None in ranges:
            return
        valence, arousal = (pc.struct_field(ok[name], "value").to_numpy() for name in ("valence", "arousal"))
        counted, *_ = np.histogram2d(valence, arousal, GRID, np.array(ranges))
        self.density = counted.astype(int) + (0 if self.density is None else self.density)


def excerpt(output: OutputFolder, records: Sequence[RunRecord]) -> Excerpt:
    """Looks at runs' rows: at all, or at random groups of them, drawn by the runs' ids. Raises OSError and Arrow's errors."""
    parts = _parts(output, records)
    found = Excerpt(sum(part.metadata.num_rows for part in parts))
    for part in parts:
        found.schemes = part.schemes | found.schemes
    for part, groups in _drawn(parts, [record.run_id for record in records]):
        wanted = ["uri", "content_hash", "status", "error", *part.schemes]
        with output.open(part.path) as file:
            parquet = pq.ParquetFile(file, metadata=part.metadata, pre_buffer=True)
            for group in groups:
                found.add(parquet.read_row_group(group, wanted, use_threads=False), part.run, part.first_of(group))
    return found


def _parts(output: OutputFolder, records: Sequence[RunRecord]) -> list[Part]:
    def metadata(path: str) -> pq.FileMetaData:
        with output.open(path) as file:
            return pq.ParquetFile(file).metadata

    named = [(run, file) for run, record in enumerate(records) for file in record.files]
    parts: list[Part] = []
    for (run, path), about in zip(named, mapped(metadata, (path for _, path in named), THREADS), strict=True):
        last = parts[-1] if parts and parts[-1].run == run else None
        parts.append(Part(run, path, last.first + last.metadata.num_rows if last else 0, about))
    return parts


def _drawn(parts: Sequence[Part], seed: Sequence[str]) -> list[tuple[Part, list[int]]]:
    """The groups of rows that are read of each file, in their order."""
    groups = [(part, group) for part in range(len(parts)) for group in range(parts[part].metadata.num_row_groups)]
    order = np.random.default_rng(xxhash.xxh64_intdigest("\n".join(seed).encode())).permutation(len(groups))
    chosen: list[tuple[int, int]] = []
    rows = 0
    for part, group in (groups[i] for i in order):
        rows += parts[part].metadata.row_group(group).num_rows
        if chosen and rows > ROWS:
            break
        chosen.append((part, group))
    return [(parts[part], sorted(group for other, group in chosen if other == part)) for part in sorted({part for part, _ in chosen})]


def _probs(column: pa.ChunkedArray) -> np.ndarray:
    return pc.list_flatten(pc.struct_field(column, "probs")).to_numpy()


def _choices(column: pa.ChunkedArray, about: SchemeMetadata, probs: np.ndarray) -> np.ndarray:
    """The place of the label written, int [n]."""
    if about.kind == "ordinal":
        return probs.argmax(1)
    return pc.index_in(pc.struct_field(column, "label"), pa.array(about.labels, pa.string())).to_numpy()
