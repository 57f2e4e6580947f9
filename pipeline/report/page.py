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

import pyarrow as pa

from pipeline.config import AnnotateConfig
from pipeline.errors import STATUSES, StorageError, UserError
from pipeline.report import cards, drift, run_selection
from pipeline.report.highlights import Pick, arranged
from pipeline.report.row_sample import Excerpt, excerpt
from pipeline.report.thumbnails import Picture, pictures, settings_of
from pipeline.storage.files import write_atomic
from pipeline.storage.filesystem import connect
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord, past_runs
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


def write_beside(config: AnnotateConfig, output: OutputFolder, record: RunRecord) -> None:
    """Write a run's page beside its record, unless it exists. A failure is logged and ends nothing: the run is committed."""
    path = run_selection.name([record])
    try:
        if not output.exists(path):
            text = page(output, [record], past_runs(output, record.model), {record.run_id: config})
            output.write(path, text.encode(), HTML)
    except Exception as error:
        problem = f"{type(error).__name__}: {one_line(str(error))}"
        logger.warning("run %s is committed, but its page could not be written (%s): run jobs/report.py", record.run_id, problem)


def write(
    output: OutputFolder,
    run_id: str | None = None,
    since: dt.date | None = None,
    until: dt.date | None = None,
    to: str | None = None,
) -> str:
    """Write the page of a run, or of the runs between two dates (see `run_selection.chosen`), to a path or URI. Return where it is.

    Raises UserError.
    """
    known = past_runs(output)
    records = run_selection.chosen(known, run_id, since, until)
    to = to or f"{output.uri.rstrip('/')}/{run_selection.name(records)}"
    fs, path = connect(to, output.options)
    text = page(output, records, known, {record.run_id: settings_of(record, output) for record in records})
    try:
        write_atomic(fs, path, text.encode(), HTML)
    except (OSError, StorageError) as error:
        raise UserError(f"{to} can't be written: {error or type(error).__name__}; check the path and the credentials") from None
    return to


def page(output: OutputFolder, records: Sequence[RunRecord], known: Sequence[RunRecord], settings: Settings) -> str:
    """Return the page of runs of one model, earliest first, compared with the runs among `known` that came before them."""
    earlier = run_selection.earlier(known, records, drift.NIGHTS)
    now, before = drift.tally(records), drift.tally(earlier)
    changes = drift.changes(now, before)
    by_night = drift.by_night(earlier) | drift.by_night(records)
    seen, problem = _seen(output, records)
    may_show = not any(record.config.get("from_embeddings") or not record.config.get("report_images", True) for record in records)
    shelves = arranged(seen.shelves, now) if seen and may_show else {}
    about = {name: cards.card(name, now[name], before.get(name, {}), changes.get(name), by_night, seen) for name in now}
    return _rendered(
        records=records,
        earlier=earlier,
        earlier_dates=sorted({record.date for record in earlier}),
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
        pictures=_pictures(output, records, settings, [pick for picks in shelves.values() for pick in picks]),
        may_show=may_show,
        meanings=STATUSES,
        rule=drift,
    )


def _counts(records: Sequence[RunRecord]) -> dict[str, int]:
    """Return the sums of the runs' counts."""
    each = [record.counts for record in records]
    total = {name: sum(getattr(counts, name) for counts in each) for name in ("listed", "known", "rows")}
    ok = sum(counts.status.get("ok", 0) for counts in each)
    reposts = sum(counts.reposts.total for counts in each)
    return total | {"ok": ok, "failed": total["rows"] - ok, "reposts": reposts}


def _times(records: Sequence[RunRecord], names: Mapping[str, str]) -> dict[str, float]:
    """Return the sums of the runs' seconds, by title."""
    return {title: sum(record.timings.get(name) or 0 for record in records) for name, title in names.items()}


def _seen(output: OutputFolder, records: Sequence[RunRecord]) -> tuple[Excerpt | None, str | None]:
    """What a look at the rows showed, or why there is nothing to be seen."""
    if not any(record.files for record in records):
        return None, None
    try:
        return excerpt(output, records), None
    except (OSError, StorageError, KeyError, pa.ArrowException) as error:
        return None, f"{type(error).__name__}: {one_line(str(error))}"


def _pictures(output: OutputFolder, records: Sequence[RunRecord], settings: Settings, picks: Sequence[Pick]) -> dict[str, Picture]:
    found: dict[str, Picture] = {}
    for run in sorted({pick.run for pick in picks}):
        found |= pictures(output, settings[records[run].run_id], [pick for pick in picks if pick.run == run])
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


def _when(time: dt.datetime | None) -> str:
    return f"{time.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC" if time else "an unknown time"
