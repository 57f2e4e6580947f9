"""Moods over time: each scheme's label shares by date, or its mean value, as a chart and as the newest night's numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import StorageError
from pipeline.report import drift
from pipeline.report.row_groups import run_files
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord
from pipeline.table.schema import SchemeMetadata

MAX_DATES = 90  # on a chart
MAX_FILES = 3  # read for the schemes' metadata
OPACITIES = (1.0, 0.65, 0.35)  # of the bands of one polarity: the most frequent labels, and the others together
POLARITIES = ("negative", None, "positive")  # from the bottom up; neutral labels are with those of no polarity


@dataclass(frozen=True)
class Band:
    """Labels of one polarity, mostly one label: their share of the images (0 to 1) by date, and on the dates before the last one."""

    label: str
    polarity: str | None
    opacity: float
    shares: dict[str, float]
    before: float | None

    @property
    def now(self) -> float:
        return list(self.shares.values())[-1]


@dataclass(frozen=True)
class Mean:
    """An ordinal scheme's mean value by date, and of the dates before the last one. `rounded` dates have the mean of nearest levels."""

    values: dict[str, float]
    before: float | None
    range: list[float] | None
    rounded: list[str]

    @property
    def now(self) -> float:
        return list(self.values.values())[-1]


@dataclass(frozen=True)
class Mood:
    """A scheme's part of the page, with `bands` from the top of the chart down, or a `mean`. The chart is SVG, or empty."""

    name: str
    dates: list[str]
    bands: list[Band]
    mean: Mean | None
    zero_shot: bool
    drifted: float | None
    chart: str

    @property
    def earlier(self) -> int:
        """The number of dates that the last one is compared with."""
        return min(len(self.dates) - 1, drift.MAX_DATES)


def moods(output: OutputFolder, runs: Sequence[RunRecord], drifted: Mapping[str, Mapping[str, float]]) -> Iterator[Mood]:
    """Yield the moods of comparable runs with rows, the newest first: their last MAX_DATES dates.

    `drifted` are the distances of what drifted in a run, by its ID.
    """
    shown = sorted({run.date for run in runs})[-MAX_DATES:]
    runs = [run for run in runs if run.date in shown]
    metadata = _metadata(output, runs)
    by_date = drift.tally_by_date(runs)
    for name in dict.fromkeys(name for run in runs for name in run.counts.labels):
        counts = {date: found[name] for date, found in by_date.items() if sum(found.get(name, {}).values())}
        marks = sorted({run.date.isoformat() for run in runs if name in drifted.get(run.run_id, {})} & counts.keys())
        scheme = metadata.get(name)
        if not counts:
            continue
        mean = _mean(name, runs, counts, scheme) if _kind(name, runs) == "ordinal" else None
        bands = [] if mean else _bands(counts, scheme)
        dates = list(mean.values if mean else counts)
        chart = ""
        if len(dates) > 1:
            from pipeline.report import charts  # Altair takes a second to import

            shares = [(band.polarity, band.opacity, band.shares) for band in bands]
            chart = charts.mean_by_date(mean.values, mean.range, marks) if mean else charts.shares_by_date(shares, marks)
        yield Mood(name, dates, bands[::-1], mean, name in runs[0].zero_shot, drifted.get(runs[0].run_id, {}).get(name), chart)


def _kind(name: str, runs: Sequence[RunRecord]) -> str | None:
    return next((run.schemes[name] for run in runs if name in run.schemes), None)


def _metadata(output: OutputFolder, runs: Sequence[RunRecord]) -> dict[str, SchemeMetadata]:
    """Return what the newest files of the runs state of their schemes: MAX_FILES at most, until all schemes are known."""
    found: dict[str, SchemeMetadata] = {}
    tries = 0
    for run in runs:
        if not run.files or run.counts.labels.keys() <= found.keys():
            continue
        if tries == MAX_FILES:
            break
        tries += 1
        try:
            (file,) = run_files(output, [run.model_copy(update={"files": run.files[:1]})])
            found = file.schemes | found
        except (OSError, StorageError, KeyError, TypeError, ValueError, pa.ArrowException):
            continue  # without its file, a scheme's labels are grey
    return found


def _bands(counts: Mapping[str, drift.Labels], scheme: SchemeMetadata | None) -> list[Band]:
    """Return a categorical scheme's bands from the bottom up: of each polarity its most frequent labels, and the others together."""
    labels = list(dict.fromkeys(label for found in counts.values() for label in found))
    total = {label: sum(found.get(label, 0) for found in counts.values()) for label in labels}
    stated = dict(zip(scheme.labels, scheme.polarities or [], strict=False)) if scheme else {}
    bands = []
    for polarity in POLARITIES:
        group = [label for label in labels if (stated.get(label) if stated.get(label) in POLARITIES else None) == polarity]
        group.sort(key=lambda label: -total[label])
        whole = len(group) <= len(OPACITIES)
        alone = group if whole else group[: len(OPACITIES) - 1]
        parts = [([label], label) for label in alone]
        if not whole:
            parts.append((group[len(alone) :], f"{len(group) - len(alone)} other{f' {polarity}' if polarity else ''}"))
        named = [_band(counts, part, name, polarity, opacity) for (part, name), opacity in zip(parts, OPACITIES, strict=False)]
        bands += named[::-1] if polarity == "positive" else named  # the most frequent are at the chart's edges
    return bands


def _band(counts: Mapping[str, drift.Labels], labels: Sequence[str], name: str, polarity: str | None, opacity: float) -> Band:
    images = {date: sum(found.get(label, 0) for label in labels) for date, found in counts.items()}
    totals = {date: sum(found.values()) for date, found in counts.items()}
    before = _before(list(counts))
    share_before = sum(images[date] for date in before) / sum(totals[date] for date in before) if before else None
    return Band(name, polarity, opacity, {date: images[date] / totals[date] for date in counts}, share_before)


def _mean(name: str, runs: Sequence[RunRecord], counts: Mapping[str, drift.Labels], scheme: SchemeMetadata | None) -> Mean | None:
    """Return an ordinal scheme's means; None if no date has one."""
    levels = dict(zip(scheme.labels, scheme.values or [], strict=False)) if scheme else {}
    sums: dict[str, float] = {}
    rounded: list[str] = []
    for date, found in counts.items():
        of_date = [run for run in runs if run.date.isoformat() == date and any(run.counts.labels.get(name, {}).values())]
        if all(name in run.counts.sums for run in of_date):
            sums[date] = sum(run.counts.sums[name] for run in of_date)
        elif found.keys() <= levels.keys():
            sums[date] = sum(levels[label] * count for label, count in found.items())
            rounded.append(date)
    if not sums:
        return None
    images = {date: sum(counts[date].values()) for date in sums}
    before = _before(list(sums))
    mean_before = sum(sums[date] for date in before) / sum(images[date] for date in before) if before else None
    return Mean({date: sums[date] / images[date] for date in sums}, mean_before, scheme.range if scheme else None, rounded)


def _before(dates: Sequence[str]) -> Sequence[str]:
    """Return the dates that the last one is compared with, as on its own page."""
    return dates[:-1][-drift.MAX_DATES :]
