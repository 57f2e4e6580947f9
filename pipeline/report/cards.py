"""What a report says of a scheme, or of the statuses: its distribution beside the earlier nights', and its charts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.report import drift
from pipeline.report.drift import Change, Labels, Tally
from pipeline.report.row_sample import Excerpt


@dataclass(frozen=True)
class Bar:
    """A label: how many images have it now, which share that is, and which it was."""

    label: str
    polarity: str | None
    count: int
    share: float
    before: float | None


@dataclass(frozen=True)
class Card:
    """`nights` and `confidence` are charts, as SVG, or empty."""

    name: str
    bars: list[Bar]
    total: int
    change: Change | None
    nights: str
    confidence: str

    @property
    def longest(self) -> float:
        return max((max(bar.share, bar.before or 0) for bar in self.bars), default=0) or 1


def card(name: str, now: Labels, before: Labels, change: Change | None, nights: Mapping[str, Tally], seen: Excerpt | None) -> Card:
    total, earlier = sum(now.values()), sum(before.values())
    about = seen.schemes.get(name) if seen else None
    polarities = dict(zip(about.labels, about.polarities or [], strict=False)) if about else {}
    labels = {**now, **{label: 0 for label in before if label not in now}}
    bars = [
        Bar(label, polarities.get(label), count, count / max(total, 1), before.get(label, 0) / earlier if earlier else None)
        for label, count in labels.items()
    ]
    return Card(name, bars, total, change, _nights(drift.distances(nights, name)), _confidence(seen.confidence.get(name) if seen else None))


def density(seen: Excerpt | None) -> str:
    """The map of valence and arousal, as SVG; empty where there is none."""
    if seen is None or seen.density is None:
        return ""
    from pipeline.report import charts  # takes a second: only where there is something to draw

    return charts.density(seen.density, ("valence", "arousal"), [seen.schemes[name].range or [] for name in ("valence", "arousal")])


def _nights(distances: Mapping[str, float]) -> str:
    if len(distances) < 2:
        return ""
    from pipeline.report import charts

    return charts.by_night(distances, drift.LEAST)


def _confidence(counts: np.ndarray | None) -> str:
    if counts is None:
        return ""
    from pipeline.report import charts

    return charts.histogram(counts, 0, 1, "probability of the label written")
