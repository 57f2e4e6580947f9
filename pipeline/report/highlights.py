"""Selects the images that a page shows: the most and least confident of each label, and an ordinal scheme's extremes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.table.schema import SchemeMetadata

MAX_IMAGES = 60  # on a page
MAX_PER_GROUP = 4


@dataclass(frozen=True)
class HighlightGroup:
    """Images shown together: those of one `kind`, such as "most confident", for a label, or for an ordinal scheme (`label` is None)."""

    scheme: str
    label: str | None
    kind: str


@dataclass(frozen=True)
class Highlight:
    """An image to show. Groups hold the lowest `rank` first; `value` is the text beside the image.

    `run` is the run's index in the page's list of runs, and `row` the number of the image's row within that run.
    """

    rank: float
    value: str
    uri: str
    content_hash: str
    row: int
    run: int


Highlights = dict[HighlightGroup, list[Highlight]]


def find_highlights(
    ok: pa.Table, schemes: Mapping[str, SchemeMetadata], probs: Mapping[str, np.ndarray], choices: Mapping[str, np.ndarray], run: int
) -> Highlights:
    """Return each group's highlights among rows of one run whose status is ok, lowest rank first; images with the same bytes count once.

    By scheme, `probs` is float [rows, labels] and `choices`, int [rows], the index of the predicted label.
    """
    unique = _first_of_each(ok["content_hash"])

    def lowest(rows: np.ndarray, rank: np.ndarray, text: str, *values: np.ndarray) -> list[Highlight]:
        rows = rows[np.argsort(rank[rows], kind="stable")[:MAX_PER_GROUP]]
        images = ok.select(["uri", "content_hash", "row"]).take(pa.array(rows)).to_pylist()
        texts = [text.format(*(column[i] for column in values)) for i in rows]
        return [Highlight(float(rank[i]), value, **image, run=run) for i, value, image in zip(rows, texts, images, strict=True)]

    found: Highlights = {}
    for name, scheme in schemes.items():
        if scheme.kind == "ordinal":
            levels = np.asarray(scheme.values)
            value = probs[name] @ levels
            spread = np.sqrt(np.maximum(probs[name] @ levels**2 - value**2, 0))
            rows = np.flatnonzero(unique)
            found[HighlightGroup(name, None, "highest")] = lowest(rows, -value, "{0:.2f}", value)
            found[HighlightGroup(name, None, "lowest")] = lowest(rows, value, "{0:.2f}", value)
            found[HighlightGroup(name, None, "least confident")] = lowest(rows, -spread, "{0:.2f} ± {1:.2f}", value, spread)
        else:
            score = np.take_along_axis(probs[name], choices[name][:, None], 1)[:, 0]
            for index, label in enumerate(scheme.labels):
                rows = np.flatnonzero(unique & (choices[name] == index))
                found[HighlightGroup(name, label, "most confident")] = lowest(rows, -score, "{0:.1f} %", 100 * score)
                found[HighlightGroup(name, label, "least confident")] = lowest(rows, score, "{0:.1f} %", 100 * score)
    return found


def merge(some: Sequence[Highlight], others: Sequence[Highlight]) -> list[Highlight]:
    """Return the lowest ranks of two lists of one group; images with the same bytes count once."""
    by_hash: dict[str, Highlight] = {}
    for highlight in sorted([*some, *others], key=lambda each: (each.rank, each.run, each.row)):
        by_hash.setdefault(highlight.content_hash, highlight)
    return list(by_hash.values())[:MAX_PER_GROUP]


def select(highlights: Mapping[HighlightGroup, Sequence[Highlight]], counts: Mapping[str, Mapping[str, int]]) -> Highlights:
    """Select the highlights that fit on the page: groups of each scheme's most frequent labels, by `counts` of scheme and label."""
    schemes = dict.fromkeys(group.scheme for group in highlights)
    labels_per_scheme = max(2, MAX_IMAGES // (2 * max(len(schemes), 1)))
    frequent = {scheme: _most_frequent(counts.get(scheme, {}), labels_per_scheme) for scheme in schemes}
    groups = [group for group, images in highlights.items() if images and (group.label is None or group.label in frequent[group.scheme])]
    groups = groups[:MAX_IMAGES]
    per_group = min(MAX_PER_GROUP, max(1, MAX_IMAGES // max(len(groups), 1)))
    return {group: list(highlights[group][:per_group]) for group in groups}


def _first_of_each(values: pa.ChunkedArray) -> np.ndarray:
    """Return which rows are the first with their value, bool [rows]."""
    indices = pc.dictionary_encode(values.combine_chunks()).indices.to_numpy()
    first = np.zeros(len(values), bool)
    first[np.unique(indices, return_index=True)[1]] = True
    return first


def _most_frequent(counts: Mapping[str, int], most: int) -> list[str]:
    return sorted(counts, key=lambda label: -counts[label])[:most]
