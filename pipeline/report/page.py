"""A run, or the nights between two dates, as a page that people look at: one file that needs no network and runs no script.

    OUTPUT/runs/<run_id>.html

docs/report.md says what each part of it means. Whatever the page repeats was written by others (names of files, messages, settings):
Jinja escapes it, and the page's Content-Security-Policy allows nothing but its own style and pictures within it.
"""

import datetime as dt
import hashlib
import logging
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from pipeline.config import AnnotateConfig
from pipeline.errors import STATUSES, StorageError, UserError
from pipeline.report import cards, drift, run_selection
from pipeline.report.highlights import Pick, arranged
from pipeline.report.row_sample import Excerpt, excerpt
from pipeline.report.run_selection import Record
from pipeline.report.thumbnails import Picture, pictures, settings_of
from pipeline.storage.files import listed, write_atomic
from pipeline.storage.filesystem import Options, connect
from pipeline.table.run_record import past_runs
from pipeline.text import duration
from ugrie.text import one_line

logger = logging.getLogger(__name__)
FOLDER = Path(__file__).parent
HTML = "text/html; charset=utf-8"
Settings = Mapping[str, AnnotateConfig | None]  # of each run, by its id

ON_THE_CLOCK = {
    "plan_seconds": "listing and planning",
    "ray_seconds": "starting Ray",
    "annotate_seconds": "annotating",
    "commit_seconds": "verifying and committing",
}
OF_WORKERS = {
    "all_fetch_seconds": "waiting for bytes",
    "all_decode_seconds": "decoding",
    "all_annotate_seconds": "the model",
}


def beside(config: AnnotateConfig, fs: fsspec.AbstractFileSystem, root: str, record: Record) -> None:
    """Writes a run's page beside its record, unless it is there. What goes wrong is said in the log, and harms nobody."""
    path = f"{root}/{run_selection.name([record])}"
    try:
        if not listed(fs, root, lambda: fs.exists(path)):
            text = page(fs, root, [record], past_runs(fs, root, record["model"]), {record["run_id"]: config})
            write_atomic(fs, path, text.encode(), HTML)
    except Exception as error:  # the run is done
        problem = f"{type(error).__name__}: {one_line(str(error))}"
        logger.warning("run %s is committed, but its page could not be written (%s): jobs/report.py does", record["run_id"], problem)


def write(
    output: str,
    options: Options,
    run_id: str | None = None,
    since: dt.date | None = None,
    until: dt.date | None = None,
    to: str | None = None,
) -> str:
    """Writes the page of a run, or of some dates (see `nights.chosen`), to a path or URI. Returns it. Raises UserError."""
    fs, root = connect(output, options)
    root = root.rstrip("/")
    known = past_runs(fs, root)
    records = run_selection.chosen(known, run_id, since, until)
    to = to or f"{output.rstrip('/')}/{run_selection.name(records)}"
    there, path = connect(to, options)
    settings = {record["run_id"]: settings_of(record, output, options) for record in records}
    text = page(fs, root, records, known, settings)
    try:
        write_atomic(there, path, text.encode(), HTML)
    except (OSError, StorageError) as error:
        raise UserError(f"{to} can't be written: {error or type(error).__name__}; check the path and the credentials") from None
    return to


def page(fs: fsspec.AbstractFileSystem, root: str, records: Sequence[Record], known: Sequence[Record], settings: Settings) -> str:
    """The page of some runs of one model, the earliest first, compared with those of `known` that came before them."""
    earlier = run_selection.earlier(known, records, drift.NIGHTS)
    now, before = drift.tally(records), drift.tally(earlier)
    changes = drift.changes(now, before)
    by_night = drift.by_night(earlier) | drift.by_night(records)
    seen, problem = _seen(fs, root, records)
    may_show = not any(record["config"].get("from_embeddings") or not record["config"].get("report_images", True) for record in records)
    shelves = arranged(seen.shelves, now) if seen and may_show else {}
    about = {name: cards.card(name, now[name], before.get(name, {}), changes.get(name), by_night, seen) for name in now}
    return _rendered(
        records=records,
        earlier=earlier,
        earlier_dates=sorted({record["date"] for record in earlier}),
        counts=_counts(records),
        times={"On the clock": _times(records, ON_THE_CLOCK), "Of all workers together": _times(records, OF_WORKERS)},
        statuses=about.pop(drift.STATUS),
        cards=list(about.values()),
        drifted=[name for name, change in changes.items() if change.drifted],
        tested=len(changes),
        seen=seen,
        problem=problem,
        density=cards.density(seen),
        shelves=shelves,
        pictures=_pictures(fs, root, records, settings, [pick for picks in shelves.values() for pick in picks]),
        may_show=may_show,
        meanings=STATUSES,
        rule=drift,
    )


def _counts(records: Sequence[Record]) -> dict[str, int]:
    """What the runs counted, together."""
    each = [record["counts"] for record in records]
    total = {name: sum(counts.get(name, 0) for counts in each) for name in ("listed", "known", "rows")}
    ok = sum(counts.get("status", {}).get("ok", 0) for counts in each)
    reposts = sum(sum(counts.get("reposts", {}).values()) for counts in each)
    return total | {"ok": ok, "failed": total["rows"] - ok, "reposts": reposts}


def _times(records: Sequence[Record], names: Mapping[str, str]) -> dict[str, float]:
    """Seconds of all runs together, by what they were spent on."""
    return {title: sum(record.get("timings", {}).get(name) or 0 for record in records) for name, title in names.items()}


def _seen(fs: fsspec.AbstractFileSystem, root: str, records: Sequence[Record]) -> tuple[Excerpt | None, str | None]:
    """What a look at the rows showed, or why there is nothing to be seen."""
    if not any(record["files"] for record in records):
        return None, None
    try:
        return excerpt(fs, root, records), None
    except (OSError, StorageError, KeyError, pa.ArrowException) as error:
        return None, f"{type(error).__name__}: {one_line(str(error))}"


def _pictures(
    fs: fsspec.AbstractFileSystem, root: str, records: Sequence[Record], settings: Settings, picks: Sequence[Pick]
) -> dict[str, Picture]:
    found: dict[str, Picture] = {}
    for run in sorted({pick.run for pick in picks}):
        found |= pictures(fs, root, settings[records[run]["run_id"]], [pick for pick in picks if pick.run == run])
    return found


def _rendered(**about: Any) -> str:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"visible": _visible, "last_part": _last_part, "duration": duration, "when": _when}
    style = (FOLDER / "page.css").read_text()
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("page.html.jinja").render(**about, style=Markup(style), style_digest=digest)


def _visible(text: Any) -> str:
    """What others wrote, with what can't be seen (such as marks that turn the direction of writing) escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2] or uri


def _when(time: str) -> str:
    """A record's time, in UTC."""
    try:
        return f"{dt.datetime.fromisoformat(time).astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return _visible(time)
