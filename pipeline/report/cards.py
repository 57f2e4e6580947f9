"""The page's sections about a scheme, or about the statuses: the distribution beside the earlier nights', and charts."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.report import drift
from pipeline.report.drift import Change, Labels, Tally
from pipeline.report.row_sample import RowSample


@dataclass(frozen=True)
class Bar:
    """A label's images: their number, their share now (0 to 1), and their share in earlier nights (None if there are none)."""

    label: str
    polarity: str | None
    count: int
    share: float
    before: float | None


@dataclass(frozen=True)
class Card:
    """The section of a scheme, or of the statuses. The charts are SVG, or empty."""

    name: str
    bars: list[Bar]
    total: int
    change: Change | None
    drift_chart: str
    confidence_chart: str

    @property
    def max_share(self) -> float:
        return max((max(bar.share, bar.before or 0) for bar in self.bars), default=0) or 1


def make_card(
    name: str, now: Labels, before: Labels, change: Change | None, by_date: Mapping[str, Tally], sample: RowSample | None
) -> Card:
    """Make the card of a scheme, or of `drift.STATUS`. `by_date` also holds the earlier nights."""
    bars = _bars(now, before, _polarities(name, sample))
    return Card(name, bars, sum(now.values()), change, _drift_chart(name, by_date), _confidence_chart(name, sample))


def density_chart(sample: RowSample | None) -> str:
    """Return the map of valence and arousal as SVG, or nothing without both schemes."""
    if sample is None or sample.density is None:
        return ""
    from pipeline.report import charts  # Altair takes a second to import

    axes = ("valence", "arousal")
    return charts.density(sample.density, axes, [sample.schemes[name].range or [] for name in axes])


def _bars(now: Labels, before: Labels, polarities: Mapping[str, str | None]) -> list[Bar]:
    total, total_before = sum(now.values()), sum(before.values())
    return [
        Bar(
            label=label,
            polarity=polarities.get(label),
            count=now.get(label, 0),
            share=now.get(label, 0) / max(total, 1),
            before=before.get(label, 0) / total_before if total_before else None,
        )
        for label in dict.fromkeys([*now, *before])
    ]


def _polarities(name: str, sample: RowSample | None) -> dict[str, str | None]:
    scheme = sample.schemes.get(name) if sample else None
    return dict(zip(scheme.labels, scheme.polarities or [], strict=False)) if scheme else {}


def _drift_chart(name: str, by_date: Mapping[str, Tally]) -> str:
    distances = drift.distances(by_date, name)
    if len(distances) < 2:
        return ""
    from pipeline.report import charts

    return charts.drift_by_date(distances, drift.MIN_DISTANCE)


def _confidence_chart(name: str, sample: RowSample | None) -> str:
    if sample is None or name not in sample.confidence:
        return ""
    from pipeline.report import charts

    return charts.histogram(sample.confidence[name], 0, 1, "probability of the predicted label")
