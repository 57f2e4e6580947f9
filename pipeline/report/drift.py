"""Whether the labels of a night are others than those of the nights before: by how much, and whether chance explains it.

Two distributions of labels are compared by their total variation, the share of images that would need another label for the two to be
alike. Chance is what a permutation test says (Good 2005): how often all images, divided at random into two parts of the same sizes, are
as far apart. The p-values of all that is compared in a night are corrected together (Holm 1979). With many images any difference is
beyond chance, so drift is what is beyond chance and also not small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.table.run_record import RunRecord

NIGHTS = 28  # before, that a night is compared with
LEAST = 0.05  # total variation; less is small, however sure
ALPHA = 0.01
DRAWS, SEED = 9999, 0
LARGEST = 10**9 - 1  # images that NumPy divides at random
STATUS = "status"  # compared like a scheme, none of which can have the name of this column

Labels = Mapping[str, int]
Tally = Mapping[str, Labels]  # by scheme, and by STATUS


@dataclass(frozen=True)
class Change:
    """How far a night's labels are from the earlier nights' (total variation, 0 to 1), and the p-value, corrected for all comparisons."""

    distance: float
    p: float

    @property
    def drifted(self) -> bool:
        return self.p < ALPHA and self.distance >= LEAST


def tally(records: Sequence[RunRecord]) -> dict[str, dict[str, int]]:
    """How often each label of each scheme, and each status, was given in some runs together."""
    total: dict[str, dict[str, int]] = {}
    for record in records:
        for name, labels in {**record.counts.labels, STATUS: record.counts.status}.items():
            known = total.setdefault(name, {})
            for label, count in labels.items():
                known[label] = known.get(label, 0) + count
    return total


def changes(now: Tally, before: Tally) -> dict[str, Change]:
    """What changed, for all that there are labels of on both sides."""
    found = {}
    for name in now:
        ours, theirs = _aligned(now[name], before.get(name, {}))
        if ours.sum() and theirs.sum() and len(ours) > 1:
            found[name] = (total_variation(ours, theirs), chance(ours, theirs))
    corrected = holm([p for _, p in found.values()])
    return {name: Change(distance, p) for (name, (distance, _)), p in zip(found.items(), corrected, strict=True)}


def by_night(records: Sequence[RunRecord]) -> dict[str, dict[str, dict[str, int]]]:
    """The tally of each date, the earliest first."""
    dates = sorted({record.date for record in records})
    return {date.isoformat(): tally([record for record in records if record.date == date]) for date in dates}


def distances(nights: Mapping[str, Tally], name: str) -> dict[str, float]:
    """How far each night was from those before it, at most NIGHTS of them, where there are any."""
    known = [(date, night[name]) for date, night in nights.items() if sum(night.get(name, {}).values())]
    found = {}
    for i, (date, labels) in enumerate(known[1:], 1):
        before: dict[str, int] = {}
        for _, earlier in known[max(0, i - NIGHTS) : i]:
            for label, count in earlier.items():
                before[label] = before.get(label, 0) + count
        found[date] = total_variation(*_aligned(labels, before))
    return found


def total_variation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Half of the summed differences of the shares of two rows of counts."""
    return float(np.abs(ours / ours.sum() - theirs / theirs.sum()).sum() / 2)


def chance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The p-value of the permutation test of two rows of counts, int64 [labels]; 1 / (DRAWS + 1) at least. The seed is fixed."""
    apart = total_variation(ours, theirs)
    if (factor := -(-(ours.sum() + theirs.sum()) // LARGEST)) > 1:
        ours, theirs = ours // factor, theirs // factor
    all_images = ours + theirs
    draw = np.random.default_rng(SEED)
    drawn = draw.multivariate_hypergeometric(all_images, int(ours.sum()), size=DRAWS, method="marginals")
    shares, rest = drawn / max(ours.sum(), 1), (all_images - drawn) / max(theirs.sum(), 1)
    as_far = np.abs(shares - rest).sum(1) / 2 >= apart - 1e-12
    return float((1 + as_far.sum()) / (1 + DRAWS))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order (Holm 1979)."""
    p = np.asarray(values, float)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(np.minimum(1, p[order] * (len(p) - np.arange(len(p)))))
    return corrected.tolist()


def _aligned(ours: Labels, theirs: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of counts, int64, of all labels of either."""
    labels = dict.fromkeys([*ours, *theirs])
    return np.array([ours.get(label, 0) for label in labels], np.int64), np.array([theirs.get(label, 0) for label in labels], np.int64)
