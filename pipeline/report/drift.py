"""Detects label drift: whether the labels of a night differ from those of earlier nights by more than chance, and by how much.

Two distributions of labels are compared by their total variation, the share of images that would need another label to make them
equal. The p-value is from a permutation test (Good 2005): the share of random divisions of all images into two parts of the same sizes
that are at least as far apart. The p-values of a page are corrected together (Holm 1979). With many images any difference is
significant, so it is drift only if it is also not small.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.table.run_record import RunRecord

MAX_DATES = 28  # that a night is compared with
MIN_DISTANCE = 0.05  # total variation; less is no drift, however significant
ALPHA = 0.01
PERMUTATIONS, SEED = 9999, 0
BATCH = 1000  # permutations after which the test may stop
MAX_IMAGES = 10**9 - 1  # NumPy's limit for `method="marginals"`
STATUS = "status"  # compared like a scheme: no scheme can have the name of this column

Labels = Mapping[str, int]
Tally = Mapping[str, Labels]  # images by label, by scheme and STATUS


@dataclass(frozen=True)
class Change:
    """The total variation (0 to 1) between a night's labels and the earlier ones, and the p-value, corrected for all comparisons."""

    distance: float
    p: float

    @property
    def drifted(self) -> bool:
        return self.p < ALPHA and self.distance >= MIN_DISTANCE


def tally(records: Sequence[RunRecord]) -> dict[str, dict[str, int]]:
    """Count the images of some runs together by label of each scheme, and new images by status.

    Images that failed in an earlier run have been counted there: retried, they would make a quiet night look like a bad one.
    """
    total: dict[str, dict[str, int]] = {}
    for record in records:
        new = Counter(record.counts.status) - Counter(record.counts.retried)
        for name, labels in {**record.counts.labels, STATUS: new}.items():
            total[name] = _add(total.get(name, {}), labels)
    return total


def tally_by_date(records: Sequence[RunRecord]) -> dict[str, dict[str, dict[str, int]]]:
    """Return the tally of each date, the earliest first."""
    dates = sorted({record.date for record in records})
    return {date.isoformat(): tally([record for record in records if record.date == date]) for date in dates}


def changes(now: Tally, before: Tally) -> dict[str, Change]:
    """Compare each scheme, and the statuses, if there are images on both sides."""
    found = {}
    for name in now:
        ours, theirs = _aligned(now[name], before.get(name, {}))
        if ours.sum() and theirs.sum() and len(ours) > 1:
            found[name] = (total_variation(ours, theirs), p_value(ours, theirs))
    corrected = holm([p for _, p in found.values()])
    return {name: Change(distance, p) for (name, (distance, _)), p in zip(found.items(), corrected, strict=True)}


def drifted(now: Tally, before: Tally) -> dict[str, Change]:
    """Return the changes that are drift. Where no distance reaches MIN_DISTANCE, which is quick to know, nothing is tested."""
    pairs = [_aligned(labels, before.get(name, {})) for name, labels in now.items()]
    if not any(ours.sum() and theirs.sum() and total_variation(ours, theirs) >= MIN_DISTANCE for ours, theirs in pairs):
        return {}
    return {name: change for name, change in changes(now, before).items() if change.drifted}


def distances(by_date: Mapping[str, Tally], name: str) -> dict[str, float]:
    """Return the total variation of each date from the MAX_DATES dates before it together, for one scheme; not for the first date."""
    nights = [(date, found[name]) for date, found in by_date.items() if sum(found.get(name, {}).values())]
    distance = {}
    for i, (date, labels) in enumerate(nights[1:], 1):
        before: dict[str, int] = {}
        for _, earlier in nights[max(0, i - MAX_DATES) : i]:
            before = _add(before, earlier)
        distance[date] = total_variation(*_aligned(labels, before))
    return distance


def total_variation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return half the sum of the absolute differences of the shares, of two arrays of counts by label."""
    return float(np.abs(ours / ours.sum() - theirs / theirs.sum()).sum() / 2)


def p_value(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the p-value of a permutation test of two arrays of counts, int64 [labels]. The seed is fixed.

    The test stops where p can't be below ALPHA any more (Besag & Clifford 1991), which most nights reach after one batch. The p-value
    is at least 1 / (PERMUTATIONS + 1). Beyond MAX_IMAGES images the counts are scaled down.
    """
    distance = total_variation(ours, theirs)
    if (factor := -(-(ours.sum() + theirs.sum()) // MAX_IMAGES)) > 1:
        ours, theirs = ours // factor, theirs // factor
    both = ours + theirs
    rng = np.random.default_rng(SEED)
    as_far = done = 0
    while done < PERMUTATIONS and 1 + as_far < ALPHA * (1 + PERMUTATIONS):
        size = min(BATCH, PERMUTATIONS - done)
        drawn = rng.multivariate_hypergeometric(both, int(ours.sum()), size=size, method="marginals")
        drawn_shares, other_shares = drawn / max(ours.sum(), 1), (both - drawn) / max(theirs.sum(), 1)
        as_far += int((np.abs(drawn_shares - other_shares).sum(1) / 2 >= distance - 1e-12).sum())
        done += size
    return (1 + as_far) / (1 + done)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons (Holm 1979), in their order."""
    p = np.asarray(values, float)
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(np.minimum(1, p[order] * (len(p) - np.arange(len(p)))))
    return corrected.tolist()


def _add(some: Labels, others: Labels) -> dict[str, int]:
    return {**some, **{label: some.get(label, 0) + count for label, count in others.items()}}


def _aligned(ours: Labels, theirs: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of counts, int64, over all labels of either."""
    labels = dict.fromkeys([*ours, *theirs])
    return np.array([ours.get(label, 0) for label in labels], np.int64), np.array([theirs.get(label, 0) for label in labels], np.int64)
