"""Which images are worth a look: of each label those that the model is surest and least sure of, and an ordinal scheme's extremes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.table.schema import SchemeMetadata

MOST_IMAGES = 60  # of a page
MOST_EACH = 4  # of a shelf


@dataclass(frozen=True)
class Shelf:
    """A place for images that have something in common: `what` of a scheme, or of one of its labels."""

    scheme: str
    label: str | None
    what: str


@dataclass(frozen=True)
class Pick:
    """An image on a shelf: the lower its `rank`, the more it belongs there. It is row `row` of the run at the place `run`."""

    rank: float
    shown: str
    uri: str
    content_hash: str
    row: int
    run: int


def picks_of(
    ok: pa.Table, schemes: Mapping[str, SchemeMetadata], probs: Mapping[str, np.ndarray], choices: Mapping[str, np.ndarray], run: int
) -> dict[Shelf, list[Pick]]:
    """The best of some rows for each shelf, the best first, no two with the same bytes."""
    hashes = pc.dictionary_encode(ok["content_hash"].combine_chunks()).indices.to_numpy()
    first = np.zeros(len(ok), bool)
    first[np.unique(hashes, return_index=True)[1]] = True

    def pick(rows: np.ndarray, rank: np.ndarray, shown: str, *numbers: np.ndarray) -> list[Pick]:
        rows = rows[np.argsort(rank[rows], kind="stable")[:MOST_EACH]]
        about = ok.select(["uri", "content_hash", "row"]).take(pa.array(rows)).to_pylist()
        texts = [shown.format(*(column[i] for column in numbers)) for i in rows]
        return [
            Pick(float(rank[i]), text, row["uri"], row["content_hash"], row["row"], run)
            for i, text, row in zip(rows, texts, about, strict=True)
        ]

    found = {}
    for name, about in schemes.items():
        if about.kind == "ordinal":
            levels = np.asarray(about.values)
            value = probs[name] @ levels
            spread = np.sqrt(np.maximum(probs[name] @ levels**2 - value**2, 0))
            rows = np.flatnonzero(first)
            found[Shelf(name, None, "highest")] = pick(rows, -value, "{0:.2f}", value)
            found[Shelf(name, None, "lowest")] = pick(rows, value, "{0:.2f}", value)
            found[Shelf(name, None, "most doubtful")] = pick(rows, -spread, "{0:.2f} ± {1:.2f}", value, spread)
            continue
        score = np.take_along_axis(probs[name], choices[name][:, None], 1)[:, 0]
        for place, label in enumerate(about.labels):
            rows = np.flatnonzero(first & (choices[name] == place))
            found[Shelf(name, label, "surest")] = pick(rows, -score, "{0:.1f} %", 100 * score)
            found[Shelf(name, label, "most doubtful")] = pick(rows, score, "{0:.1f} %", 100 * score)
    return found


def merged(some: Sequence[Pick], others: Sequence[Pick]) -> list[Pick]:
    """The best of two lists for one shelf."""
    by_hash: dict[str, Pick] = {}
    for pick in sorted([*some, *others], key=lambda pick: (pick.rank, pick.run, pick.row)):
        by_hash.setdefault(pick.content_hash, pick)
    return list(by_hash.values())[:MOST_EACH]


def arranged(shelves: Mapping[Shelf, Sequence[Pick]], counts: Mapping[str, Mapping[str, int]]) -> dict[Shelf, list[Pick]]:
    """The shelves that there is room for on a page, which are those of each scheme's commonest labels, with as many images each as fit."""
    schemes = dict.fromkeys(shelf.scheme for shelf in shelves)
    labels_each = max(2, MOST_IMAGES // (2 * max(len(schemes), 1)))
    commonest = {scheme: _commonest(counts.get(scheme, {}), labels_each) for scheme in schemes}
    filled = [shelf for shelf, picks in shelves.items() if picks]
    kept = [shelf for shelf in filled if shelf.label is None or shelf.label in commonest[shelf.scheme]][:MOST_IMAGES]
    each = min(MOST_EACH, max(1, MOST_IMAGES // max(len(kept), 1)))
    return {shelf: list(shelves[shelf][:each]) for shelf in kept}


def _commonest(counts: Mapping[str, int], most: int) -> list[str]:
    return sorted(counts, key=lambda label: -counts[label])[:most]
