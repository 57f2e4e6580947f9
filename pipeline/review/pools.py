"""Reads all rows of committed runs once and keeps a bounded number of images: those among which a review chooses.

Three pools, each of different images (by content hash): a simple random sample, the images that the model is least sure of, and images
whose labels contradict each other. Memory depends on the pools' sizes, not on the rows. The random sample are the images whose hash, with
the seed, is lowest (bottom-k sampling, Cohen and Kaplan, PODC 2007): it is the same in whichever order rows are read, counts copies of an
image once, and estimates the number of different images.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.row_groups import RunFile
from pipeline.report.row_sample import choices_of, probabilities
from pipeline.table.output_folder import OutputFolder
from pipeline.table.schema import SchemeMetadata
from pipeline.table.suppressed import NOTHING, Suppressed
from ugrie.schemes.contradictions import contradicting

RANDOM = 16_384  # images of the random sample: the number of different ones is estimated to within 1.6 % (95 %)
UNSURE, CONTRADICTING = 1024, 1024
SPREAD = 2048  # images of the random sample that are candidates, or four for each that is wanted
SHA256 = 64  # hexadecimal digits
EMBEDDING = "embedding"


@dataclass
class Pool:
    """The `size` images with the lowest keys of those added. `ids` are the first 64 bits of content hashes, `places` rows of the table."""

    size: int
    keys: np.ndarray = field(default_factory=lambda: np.empty(0))
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    places: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def full(self) -> bool:
        return len(self.keys) == self.size

    def add(self, keys: np.ndarray, ids: np.ndarray, places: np.ndarray) -> None:
        """Add rows with their keys, float64 [n]. An image with several rows keeps the lowest key, and of equal ones the first place."""
        if self.full:
            near = keys < self.keys[-1]
            keys, ids, places = keys[near], ids[near], places[near]
        if not len(keys):
            return
        keys, ids, places = (np.concatenate(pair) for pair in ((self.keys, keys), (self.ids, ids), (self.places, places)))
        order = np.lexsort((places, keys))
        first = np.sort(np.unique(ids[order], return_index=True)[1])
        kept = order[first[: self.size]]
        self.keys, self.ids, self.places = keys[kept], ids[kept], places[kept]


@dataclass(frozen=True)
class Row:
    """A row of a run: `run` is the run's index in the list of runs, and `row` the number of the row within it."""

    uri: str
    content_hash: str
    run: int
    row: int


@dataclass(frozen=True)
class Candidates:
    """The images of the pools, n different ones: `rows` [n].

    `probs` is float32 [n, labels] and `choices` int [n], by scheme; `features` float32 [n, d], by which images differ; `random` [n] is the
    rank in the random sample, or -1. The corpus has `population` different images, an estimate unless `exact`.
    """

    rows: list[Row]
    probs: Mapping[str, np.ndarray]
    choices: Mapping[str, np.ndarray]
    unsure: np.ndarray
    contradictions: np.ndarray
    features: np.ndarray
    random: np.ndarray
    population: int
    exact: bool

    def __len__(self) -> int:
        return len(self.rows)


def uncertainty(schemes: Mapping[str, SchemeMetadata], probs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return by scheme how unsure the model is of each image, from 0 to 1: float64 [n].

    Categorical: the entropy of the probabilities, of that of a uniform distribution. Ordinal: their standard deviation, of half the range.
    """
    found = {}
    for name, scheme in schemes.items():
        p = probs[name].astype(np.float64)
        if scheme.kind == "ordinal":
            values = np.asarray(scheme.values)
            variance = p @ values**2 - (p @ values) ** 2
            found[name] = np.sqrt(np.maximum(variance, 0)) / ((values[-1] - values[0]) / 2)
        else:
            found[name] = -(p * np.log(np.maximum(p, 1e-12))).sum(1) / np.log(p.shape[1])
    return found


def any_contradiction(schemes: Mapping[str, SchemeMetadata], choices: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Return which of the images have labels of two schemes that contradict each other: bool [count]."""
    polarities = {name: scheme.polarities for name, scheme in schemes.items() if scheme.polarities}
    pairs = contradicting(polarities, choices)
    return np.any(list(pairs.values()), axis=0) if pairs else np.zeros(count, bool)


@dataclass
class Reader:
    """Reads the rows of runs' files: `schemes` are those that are reviewed, `excluded` content hashes that are left out,
    and `suppressed` the images that are never shown."""

    output: OutputFolder
    files: Sequence[RunFile]
    schemes: Mapping[str, SchemeMetadata]
    seed: int
    excluded: Collection[str] = ()
    suppressed: Suppressed = NOTHING

    def __post_init__(self) -> None:
        self.starts = np.cumsum([0, *(file.rows for file in self.files)])
        self._without = np.sort(ids_of(pa.chunked_array([pa.array(sorted(self.excluded), pa.string())])))

    def candidates(self, count: int) -> Candidates:
        """Return the images among which `count` are chosen. Raises OSError and Arrow's errors."""
        random, unsure, contradictory = Pool(RANDOM), Pool(UNSURE), Pool(CONTRADICTING)
        for start, rows in self._batches():
            places = start + rows["place"].to_numpy()
            ids = ids_of(rows["content_hash"])
            probs, choices = self._predictions(rows)
            draws = draw(ids, self.seed)
            random.add(draws, ids, places)
            unsure.add(-np.mean(list(uncertainty(self.schemes, probs).values()), axis=0), ids, places)
            against = any_contradiction(self.schemes, choices, len(rows))
            contradictory.add(draws[against], ids[against], places[against])
        exact = not random.full
        population = len(random.keys) if exact else round((random.size - 1) / random.keys[-1])
        spread = max(SPREAD, 4 * count)
        _, first = np.unique(np.concatenate([random.ids[:spread], unsure.ids, contradictory.ids]), return_index=True)
        places = np.concatenate([random.places[:spread], unsure.places, contradictory.places])[first]
        rank = {identity: number for number, identity in enumerate(random.ids.tolist())}
        return self._read(np.sort(places), rank, population, exact)

    def _batches(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield the annotated rows of each row group, with `place`, and the place of the row group's first row."""
        columns = [*dict.fromkeys(["content_hash", "status", *self.suppressed.columns]), *self.schemes]
        for number, file in enumerate(self.files):
            for first, table in file.read(self.output, range(len(file.group_rows)), columns):
                table = table.append_column("place", pa.array(np.arange(len(table))))
                rows = table.filter(pc.and_(pc.equal(table["status"], "ok"), pc.is_valid(table["content_hash"]))).combine_chunks()
                if self.suppressed and len(rows):
                    rows = rows.filter(pa.array(~self.suppressed.rows(rows))).combine_chunks()
                if len(self._without):
                    rows = rows.filter(pa.array(~np.isin(ids_of(rows["content_hash"]), self._without))).combine_chunks()
                if len(rows):
                    yield int(self.starts[number]) + first - file.first_row, rows

    def _predictions(self, rows: pa.Table) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        probs = {name: probabilities(rows[name]).reshape(-1, len(scheme.labels)) for name, scheme in self.schemes.items()}
        return probs, {name: choices_of(rows[name], scheme, probs[name]) for name, scheme in self.schemes.items()}

    def _read(self, places: np.ndarray, rank: Mapping[int, int], population: int, exact: bool) -> Candidates:
        """Read the rows at ascending places, with their embeddings if all files have them."""
        embedded = all(EMBEDDING in file.metadata.schema.to_arrow_schema().names for file in self.files)
        columns = ["uri", "content_hash", *self.schemes, *([EMBEDDING] if embedded else [])]
        parts, about = [], []
        of_file = np.searchsorted(self.starts, places, side="right") - 1
        for number in np.unique(of_file):
            file, within = self.files[number], places[of_file == number] - self.starts[number]
            ends = np.cumsum(file.group_rows)
            groups = np.searchsorted(ends, within, side="right")
            for group in np.unique(groups).tolist():
                rows = within[groups == group] - (ends[group] - file.group_rows[group])
                ((first, table),) = file.read(self.output, [group], columns)
                parts.append(table.take(pa.array(rows)))
                about += [(file.run, first + row) for row in rows.tolist()]
        table = pa.concat_tables(parts).combine_chunks() if parts else pa.table({name: pa.array([], pa.string()) for name in columns})
        images = zip(table["uri"].to_pylist(), table["content_hash"].to_pylist(), about, strict=True)
        found = [Row(uri, content_hash, run, row) for uri, content_hash, (run, row) in images]
        ids = ids_of(table["content_hash"])
        probs, choices = self._predictions(table) if parts else ({}, {})
        unsure = np.mean(list(uncertainty(self.schemes, probs).values()), axis=0) if parts else np.empty(0)
        return Candidates(
            found,
            probs,
            choices,
            unsure,
            any_contradiction(self.schemes, choices, len(found)) if parts else np.empty(0, bool),
            _features(table, probs, embedded),
            np.array([rank.get(identity, -1) for identity in ids.tolist()], np.int64),
            population,
            exact,
        )


def ids_of(hashes: pa.ChunkedArray) -> np.ndarray:
    """Return the first 64 bits of SHA-256 in hexadecimal digits: uint64 [n]."""
    if not len(hashes):
        return np.empty(0, np.uint64)
    flat = hashes.combine_chunks().cast(pa.binary()).cast(pa.binary(SHA256))
    digits = np.frombuffer(flat.buffers()[1], np.uint8)[flat.offset * SHA256 :][: len(flat) * SHA256].reshape(-1, SHA256)[:, :16]
    nibbles = np.where(digits >= ord("a"), digits - ord("a") + 10, digits - ord("0")).astype(np.uint64)
    return (nibbles << np.arange(60, -4, -4, dtype=np.uint64)).sum(1, dtype=np.uint64)


def draw(ids: np.ndarray, seed: int) -> np.ndarray:
    """Return a random number from 0 to 1 for each image, the same for equal ones: float64 [n] (the mixer SplitMix64)."""
    with np.errstate(over="ignore"):
        key = np.uint64(int.from_bytes(hashlib.sha256(f"review {seed}".encode()).digest()[:8]))
        mixed = ids ^ key
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) / 2.0**64


def _features(table: pa.Table, probs: Mapping[str, np.ndarray], embedded: bool) -> np.ndarray:
    """Return what images differ by, of unit length: embeddings, or else the square roots of all probabilities (Hellinger distance)."""
    if not len(table):
        return np.empty((0, 1), np.float32)
    if embedded:
        flat = table[EMBEDDING].combine_chunks().flatten().to_numpy()
        found = flat.reshape(len(table), -1).astype(np.float32)
    else:
        found = np.sqrt(np.concatenate(list(probs.values()), axis=1))
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
