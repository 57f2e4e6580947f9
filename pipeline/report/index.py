"""The page of all nights, the table's front door: counts and drift of the newest runs, links to their pages, and moods over time.

    OUTPUT/index.html

It is made of the run records, again after each commit: docs/guarantees.md says what holds where several runs commit at once.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pipeline.errors import UserError
from pipeline.report import drift, moods
from pipeline.report.render import GENERATOR, render
from pipeline.report.run_selection import are_alike, earlier_runs, page_path
from pipeline.storage.uris import public_message, without_secrets
from pipeline.table.output_folder import INDEX, RUNS, OutputFolder
from pipeline.table.run_record import RunRecord, past_runs

logger = logging.getLogger(__name__)
CONTENT_TYPE = "text/html; charset=utf-8"
MAX_RUNS = 90  # in the table
MAX_MODELS = 20  # listed


@dataclass(frozen=True)
class Night:
    """A run in the table: the link to its page, if there is one, and what drifted by how much; None if it can't be compared."""

    record: RunRecord
    page: str | None
    drifted: dict[str, float] | None

    @property
    def ok(self) -> int:
        return self.record.counts.status.get("ok", 0)

    @property
    def failed(self) -> int:
        return self.record.counts.rows - self.ok


@dataclass(frozen=True)
class ModelRuns:
    """The runs of one model, the newest first."""

    name: str
    runs: list[RunRecord]

    @property
    def images(self) -> int:
        return sum(run.counts.status.get("ok", 0) for run in self.runs)


def rebuild(output: OutputFolder, known: Sequence[RunRecord] = ()) -> None:
    """Write the page from all records, of which some are `known`. A failure is only logged."""
    try:
        write(output, known)
    except Exception as error:
        problem = f"{type(error).__name__}: {public_message(error, output.options)}"
        logger.warning("%s could not be written (%s): the next run writes it, or `ugrie report`", INDEX, problem)


def write(output: OutputFolder, known: Sequence[RunRecord] = ()) -> None:
    """Write the page from all records, unless it is there already, and again while there are records that it lacks.

    They are looked up after each writing. So of several drivers the one that writes last has read every record, or writes once more:
    a run that another driver did not see when it looked was committed later, and writes the page itself.

    Raises UserError where the file there is not UGRIE's or the records can't be read, and the storage's errors.
    """
    there, runs = _there(output), list(known)
    new = _missing(output, runs)
    while True:
        runs = sorted([*runs, *new], key=lambda run: run.order, reverse=True)
        data = page(output, runs).encode()
        if data != there:
            output.write(INDEX, data, CONTENT_TYPE)
            there = data
        if not (new := _missing(output, runs)):
            return


def page(output: OutputFolder, runs: Sequence[RunRecord]) -> str:
    """Return the page of the committed runs, which are sorted, the newest first."""
    pages = {f"{RUNS}/{name}" for name in output.names(RUNS) if name.endswith(".html")}
    nights = [_night(run, runs, pages) for run in runs[:MAX_RUNS]]
    newest = next((run for run in runs if run.counts.rows), None)
    charted = [run for run in runs if run.counts.rows and newest and are_alike(run, newest)]
    drifted = {night.record.run_id: night.drifted or {} for night in nights}
    models = list(_models(runs))
    return render(
        "index.html.jinja",
        place=without_secrets(output.uri),
        nights=nights,
        left_out=len(runs) - len(nights),
        unlinked=any(night.page is None for night in nights),
        runs=len(runs),
        dates=len({run.date for run in runs}),
        images=sum(run.counts.status.get("ok", 0) for run in runs),
        charted=charted,
        moods=list(moods.moods(output, charted, drifted)),
        most_dates=moods.MAX_DATES,
        drift_dates=drift.MAX_DATES,
        models=models[:MAX_MODELS],
        models_left_out=len(models[MAX_MODELS:]),
    )


def _missing(output: OutputFolder, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records in the output that are not among these; a copy of one, under another file name, counts as that one."""
    return [run for run in past_runs(output, but={run.run_id for run in runs}) if run not in runs]


def _night(run: RunRecord, runs: Sequence[RunRecord], pages: set[str]) -> Night:
    path = page_path([run])
    return Night(run, quote(path) if path in pages else None, _drifted(run, runs))


def _drifted(run: RunRecord, runs: Sequence[RunRecord]) -> dict[str, float] | None:
    """Return the distance of what drifted in a run, as its own page has it; None if there is nothing to compare."""
    earlier = earlier_runs(runs, [run], drift.MAX_DATES) if run.counts.rows else []
    if not earlier:
        return None
    return {name: change.distance for name, change in drift.drifted(drift.tally([run]), drift.tally(earlier)).items()}


def _models(runs: Sequence[RunRecord]) -> Iterator[ModelRuns]:
    """Yield the models, that of the newest run first."""
    by_model: dict[str, list[RunRecord]] = {}
    for run in runs:
        by_model.setdefault(run.model, []).append(run)
    yield from (ModelRuns(name, found) for name, found in by_model.items())


def _there(output: OutputFolder) -> bytes | None:
    """Return the page that is there. Raises UserError where it is another program's: an output may be the top of somebody's web site."""
    try:
        data = output.read(INDEX)
    except FileNotFoundError:
        return None
    if GENERATOR.encode() not in data[:2000]:
        raise UserError(f"{without_secrets(output.uri)}/{INDEX} is not UGRIE's: move it elsewhere")
    return data
