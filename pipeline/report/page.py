"""The HTML page about a run, or about the nights between two dates: one file that uses no network and runs no script.

    OUTPUT/runs/<run_id>.html

docs/report.md describes its parts. File names, messages and settings on it come from others and are not trusted: see `render`.
"""

import datetime as dt
import logging
from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipeline.config import AnnotateConfig
from pipeline.errors import STATUSES, StorageError, UserError
from pipeline.report import cards, drift, index, run_selection
from pipeline.report.highlights import Highlight, select
from pipeline.report.index import CONTENT_TYPE
from pipeline.report.render import render
from pipeline.report.row_sample import RowSample, sample_rows
from pipeline.report.thumbnails import Thumbnail, settings_of, thumbnails
from pipeline.storage.files import write_atomic
from pipeline.storage.filesystem import connect
from pipeline.storage.uris import public_message, without_secrets
from pipeline.table.output_folder import INDEX, OutputFolder, record_path
from pipeline.table.run_record import RunRecord, past_runs, read_record

logger = logging.getLogger(__name__)
INDEX_LINK = f"../{INDEX}"  # from where a page is beside its record
Settings = Mapping[str, AnnotateConfig | None]  # by run ID; None if this version can't read them

WALL_CLOCK = {
    "plan_seconds": "listing and planning",
    "ray_seconds": "waiting for Ray",
    "annotate_seconds": "annotating",
    "commit_seconds": "verifying and committing",
}
ALL_WORKERS = {
    "all_fetch_seconds": "waiting for bytes",
    "all_decode_seconds": "decoding",
    "all_annotate_seconds": "running the model",
}


def write_beside(config: AnnotateConfig, output: OutputFolder, record: RunRecord) -> None:
    """Write a run's page beside its record, unless it exists, and the page of all nights.

    A failure is only logged: the run is already committed.
    """
    path = run_selection.page_path([record])
    known: list[RunRecord] = []
    try:
        known = past_runs(output)
        written = None if output.exists(path) else record
        while written is not None:
            text = page(output, [written], known, {record.run_id: config}, INDEX_LINK)
            output.write(path, text.encode(), CONTENT_TYPE)
            now = read_record(output, record_path(record.run_id))  # an erasure may have replaced it, which the page must not outlive
            written = now if now != written else None
    except Exception as error:
        problem = f"{type(error).__name__}: {public_message(error, output.options)}"
        logger.warning("run %s is committed, but its page could not be written (%s): run `ugrie report`", record.run_id, problem)
    index.rebuild(output, known)


def write(
    output: OutputFolder,
    run_id: str | None = None,
    since: dt.date | None = None,
    until: dt.date | None = None,
    to: str | None = None,
) -> str:
    """Write the page of the runs that `select_runs` selects to a path or URI, or beside the records, and then the page of all nights.

    Return where it is. Raises UserError.
    """
    known = past_runs(output)
    records = run_selection.select_runs(known, run_id, since, until)
    place = to or f"{output.uri.rstrip('/')}/{run_selection.page_path(records)}"
    fs, path = connect(place, output.options)
    settings = {record.run_id: settings_of(record, output) for record in records}
    text = page(output, records, known, settings, None if to else INDEX_LINK)
    try:
        write_atomic(fs, path, text.encode(), CONTENT_TYPE)
    except (OSError, StorageError) as error:
        message = public_message(error, output.options)
        raise UserError(f"{without_secrets(place)} can't be written: {message}; check the path and the credentials") from None
    if not to:
        index.rebuild(output, known)
    return place


def page(output: OutputFolder, records: Sequence[RunRecord], known: Sequence[RunRecord], settings: Settings, index_link: str | None) -> str:
    """Return the page of runs of one model, earliest first, compared with the runs among `known` that came before them."""
    earlier = run_selection.earlier_runs(known, records, drift.MAX_DATES)
    now, before = drift.tally(records), drift.tally(earlier)
    by_date = drift.tally_by_date([*earlier, *records])
    changes = drift.changes(now, before)
    sample, problem = _sample(output, records)
    by_name = {name: cards.make_card(name, now[name], before.get(name, {}), changes.get(name), by_date, sample) for name in now}
    may_show = not any(record.config.get("from_embeddings") or not record.config.get("report_images", True) for record in records)
    highlights = select(sample.highlights, now) if sample and may_show else {}
    return render(
        "page.html.jinja",
        index=index_link,
        records=records,
        earlier=earlier,
        earlier_dates=sorted({record.date for record in earlier}),
        counts=_counts(records),
        times={"Wall-clock time": _times(records, WALL_CLOCK), "Time summed over all workers": _times(records, ALL_WORKERS)},
        statuses=by_name.pop(drift.STATUS),
        cards=list(by_name.values()),
        zero_shot={name for record in records for name in record.zero_shot},
        drifted=[name for name, change in changes.items() if change.drifted],
        comparisons=len(changes),
        sample=sample,
        problem=problem,
        density=cards.density_chart(sample),
        highlights=highlights,
        thumbnails=_thumbnails(output, records, settings, [image for images in highlights.values() for image in images]),
        may_show=may_show,
        meanings=STATUSES,
        rule=drift,
    )


def _counts(records: Sequence[RunRecord]) -> dict[str, int]:
    """Sum the runs' counts."""
    counts = [record.counts for record in records]
    total = {name: sum(getattr(each, name) for each in counts) for name in ("listed", "known", "overtaken", "suppressed", "erased", "rows")}
    ok = sum(each.status.get("ok", 0) for each in counts)
    reposts = sum(each.reposts.total for each in counts)
    retried = sum(sum(each.retried.values()) for each in counts)
    return total | {"ok": ok, "failed": total["rows"] - ok, "reposts": reposts, "retried": retried, "new": total["rows"] - retried}


def _times(records: Sequence[RunRecord], titles: Mapping[str, str]) -> dict[str, float]:
    """Sum the runs' timings in seconds, by title."""
    return {title: sum(record.timings.get(name) or 0 for record in records) for name, title in titles.items()}


def _sample(output: OutputFolder, records: Sequence[RunRecord]) -> tuple[RowSample | None, str | None]:
    """Return a sample of the runs' rows, or the problem with reading them; neither if there are no rows."""
    if not any(record.files for record in records):
        return None, None
    try:
        return sample_rows(output, records), None
    except (OSError, StorageError, KeyError, pa.ArrowException) as error:
        return None, f"{type(error).__name__}: {public_message(error, output.options)}"


def _thumbnails(
    output: OutputFolder, records: Sequence[RunRecord], settings: Settings, images: Sequence[Highlight]
) -> dict[str, Thumbnail]:
    found: dict[str, Thumbnail] = {}
    for run in sorted({image.run for image in images}):
        found |= thumbnails(output, settings[records[run].run_id], [image for image in images if image.run == run])
    return found
