"""Which runs a report is about, and which came before them."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UserError
from ugrie.text import did_you_mean

Record = Mapping[str, Any]


def order(record: Record) -> tuple[str, str]:
    """What runs are ordered by: their dates, then when they finished."""
    return record["date"], record["finished_at"]


def chosen(known: Sequence[Record], run_id: str | None, since: dt.date | None, until: dt.date | None) -> list[Record]:
    """The run of an id, or those of some dates that are of the newest one's model; the newest run where neither is given.

    The earliest is the first. Raises UserError where there is none, or where both are given.
    """
    if not known:
        raise UserError("the output holds no committed run: check --output")
    runs = sorted(known, key=order)
    if run_id is not None:
        if since or until:
            raise UserError("--run-id names one run: leave --since and --until out, or the id")
        if not (found := [run for run in runs if run["run_id"] == run_id]):
            ids = [run["run_id"] for run in runs]
            raise UserError(f"the output holds no committed run {run_id}{did_you_mean(run_id, ids)}; the newest is {ids[-1]}")
        return found
    if since is None and until is None:
        return runs[-1:]
    first, last = str(since or dt.date.min), str(until or dt.date.max)
    if first > last:
        raise UserError(f"--since {first} is after --until {last}: swap them")
    if not (found := [run for run in runs if first <= run["date"] <= last]):
        raise UserError(f"the output holds no run of these dates; its runs are of {runs[0]['date']} to {runs[-1]['date']}")
    return [run for run in found if run["model"] == found[-1]["model"]]


def earlier(known: Sequence[Record], records: Sequence[Record], most: int) -> list[Record]:
    """The runs with rows that came before some others of the same model: those of the last `most` dates that there are any of."""
    began, model = min(map(order, records)), records[0]["model"]
    before = [run for run in known if run["model"] == model and order(run) < began and run["counts"].get("rows")]
    dates = sorted({run["date"] for run in before})[-most:]
    return [run for run in before if run["date"] in dates]


def name(records: Sequence[Record]) -> str:
    """The page's path within the output."""
    first, last = records[0], records[-1]
    return f"runs/{first['run_id']}.html" if len(records) == 1 else f"runs/nights_{first['date']}_{last['date']}.html"
