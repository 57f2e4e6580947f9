"""Selects the runs that a page describes, and the earlier runs that it compares them with."""

import datetime as dt
from collections.abc import Sequence

from pipeline.errors import UserError
from pipeline.table.output_folder import RUNS
from pipeline.table.run_record import RunRecord
from ugrie.text import did_you_mean


def select_runs(known: Sequence[RunRecord], run_id: str | None, since: dt.date | None, until: dt.date | None) -> list[RunRecord]:
    """Return the run with an ID, or the runs between two dates (that say what the newest one says), or the newest run. Earliest first.

    Raises UserError if there is no such run, or if both an ID and a date are given.
    """
    if not known:
        raise UserError("the output holds no committed run: check --output")
    runs = sorted(known, key=lambda run: run.order)
    if run_id is not None:
        if since or until:
            raise UserError("--run-id names one run: leave out --since and --until, or the ID")
        if not (found := [run for run in runs if run.run_id == run_id]):
            ids = [run.run_id for run in runs]
            raise UserError(f"the output holds no committed run {run_id}{did_you_mean(run_id, ids)}; the newest is {ids[-1]}")
        return found
    if since is None and until is None:
        return runs[-1:]
    first, last = since or dt.date.min, until or dt.date.max
    if first > last:
        raise UserError(f"--since {first} is after --until {last}: swap them")
    if not (found := [run for run in runs if first <= run.date <= last]):
        raise UserError(f"the output holds no run between --since and --until: its runs are of {runs[0].date} to {runs[-1].date}")
    return [run for run in found if are_alike(run, found[-1])]


def earlier_runs(known: Sequence[RunRecord], records: Sequence[RunRecord], max_dates: int) -> list[RunRecord]:
    """Return the earlier non-empty runs that say what these say, over their last `max_dates` dates. Earliest first."""
    began = min(record.order for record in records)
    earlier: list[RunRecord] = []
    dates: set[dt.date] = set()
    for run in sorted(known, key=lambda run: run.order, reverse=True):
        if run.order < began and run.counts.rows and are_alike(run, records[-1]):
            dates.add(run.date)
            if len(dates) > max_dates:
                break
            earlier.append(run)
    return earlier[::-1]


def are_alike(run: RunRecord, other: RunRecord) -> bool:
    """Return whether two runs have the same model, and answered the zero-shot schemes that both have in the same way."""
    return run.model == other.model and all(other.zero_shot.get(name, digest) == digest for name, digest in run.zero_shot.items())


def page_path(records: Sequence[RunRecord]) -> str:
    """Return the path of the page of some runs within the output."""
    first, last = records[0], records[-1]
    return f"{RUNS}/{first.run_id}.html" if len(records) == 1 else f"{RUNS}/nights_{first.date}_{last.date}.html"
