"""The images that a run annotates, by the parts of the listing that they are in: files of their places, and how many each part has."""

import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.planning.decide import DECIDED, ROW_BITS, Outcome, place_of
from pipeline.table.output_folder import OutputFolder

PLACED = pa.schema([DECIDED.field(name) for name in ("place", "image_id", "outcome")])
FOUND = pa.schema([*DECIDED, pa.field("path", pa.string())])
ROWS = 2**16  # of a row group


@dataclass(frozen=True)
class NewImagesWriter:
    """Operator that writes the new images of groups of parts (DECIDED, with `group`) to a file of the output for each group.

    It returns FOUND: for each part with new images a row with the part as `place`, their `count` and the file's `path`; and all other rows
    of DECIDED as they are.
    """

    output: OutputFolder
    folder: str

    def __call__(self, decided: pa.Table) -> pa.Table:
        is_new = pc.less_equal(decided["outcome"], int(Outcome.RETRIED))
        others = decided.filter(pc.invert(is_new)).select(DECIDED.names)
        found = [others.append_column(FOUND.field("path"), pa.nulls(len(others), pa.string()))]
        new = decided.filter(is_new).sort_by("place")
        groups = (new.filter(pc.equal(new["group"], group)) for group in pc.unique(new["group"]))
        return pa.concat_tables([*found, *(self._written(group.select(PLACED.names)) for group in groups)])

    def _written(self, new: pa.Table) -> pa.Table:
        buffer = BytesIO()
        pq.write_table(new, buffer, row_group_size=ROWS, compression="zstd")
        path = f"{self.folder}/{uuid.uuid4().hex}.parquet"
        with self.output.writable():
            self.output.write(path, buffer.getvalue())
        parts, counts = np.unique(new["place"].to_numpy() >> ROW_BITS, return_counts=True)
        rows = [{"place": part, "outcome": Outcome.NEW, "count": count, "path": path} for part, count in zip(parts, counts, strict=True)]
        retried = pc.sum(pc.equal(new["outcome"], int(Outcome.RETRIED))).as_py()
        rows += [{"outcome": Outcome.RETRIED, "count": retried}] if retried else []
        return pa.Table.from_pylist(rows, FOUND)


@dataclass
class NewImages:
    """What the driver holds of the new images: of each part how many it has, and the path of the file that states them.

    `counts` are of the others, by outcome, and of those that are retried. `collided` are the places of images that have others' IDs, and
    `added` are those of them that are new, by part.
    """

    per_part: np.ndarray
    paths: dict[int, str] = field(default_factory=dict)
    counts: Counter[Outcome] = field(default_factory=Counter)
    collided: list[int] = field(default_factory=list)
    added: dict[int, list[tuple[int, int, Outcome]]] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: int, found: Iterable[pa.Table]) -> "NewImages":
        """Gather what was FOUND of so many parts."""
        images = cls(np.zeros(parts, np.int64))
        for table in found:
            for row in table.to_pylist():
                outcome = Outcome(row["outcome"])
                if row["path"] is not None:
                    images.per_part[row["place"]] = row["count"]
                    images.paths[row["place"]] = row["path"]
                elif outcome == Outcome.COLLIDED:
                    images.collided.append(row["place"])
                else:
                    images.counts[outcome] += row["count"]
        return images

    def add(self, place: int, image_id: int, outcome: Outcome) -> None:
        """Add an image that was decided on by itself."""
        if outcome > Outcome.RETRIED:
            self.counts[outcome] += 1
            return
        self.counts[Outcome.RETRIED] += outcome == Outcome.RETRIED
        part = place >> ROW_BITS
        self.per_part[part] += 1
        self.added.setdefault(part, []).append((place, image_id, outcome))

    @property
    def rows(self) -> int:
        return int(self.per_part.sum())

    def of_parts(self, parts: Iterable[int]) -> "PlacedImages":
        """Return where the new images of some parts are stated."""
        some = list(parts)
        return PlacedImages(
            {part: self.paths[part] for part in some if part in self.paths}, [row for part in some for row in self.added.get(part, ())]
        )


@dataclass(frozen=True)
class PlacedImages:
    """New images of some parts: by part, the file that states them, and those that were added."""

    paths: Mapping[int, str]
    added: list[tuple[int, int, Outcome]]

    def read(self, output: OutputFolder) -> pa.Table:
        """Read the images, in the order of the listing: PLACED."""
        places, ids, outcomes = zip(*self.added, strict=True) if self.added else ((), (), ())
        tables = [pa.table([pa.array(places, pa.int64()), pa.array(ids, pa.int64()), pa.array(map(int, outcomes), pa.int8())], PLACED)]
        for path in dict.fromkeys(self.paths.values()):
            parts = [part for part, own in self.paths.items() if own == path]
            low, high = int(place_of(min(parts), 0)), int(place_of(max(parts) + 1, 0))
            with output.open(path) as file:
                tables.append(pq.read_table(file, filters=[("place", ">=", low), ("place", "<", high)], use_threads=False))
        return pa.concat_tables(tables).sort_by("place")
