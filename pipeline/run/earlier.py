"""Finds the images that a run need not annotate, since earlier runs did, and those that it retries."""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import TypeVar

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.table.image_ids import PastFiles, PastImages
from pipeline.table.kept_columns import Keep
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord, past_runs
from pipeline.table.schema import ROW_ID, Tables
from pipeline.table_formats import table_format

T = TypeVar("T")


def images_of(output: OutputFolder, config: AnnotateConfig, tables: Tables, runs: Sequence[RunRecord], now: dt.datetime) -> PastImages:
    """Return the images that the model has annotated with every requested scheme in these committed runs, and those to retry.

    Where columns of the input are kept, they are the rows with the same columns, by their row IDs.

    An image whose failure may pass is retried until `retry_days` have passed since the first run in which it failed; then the failure
    counts as its annotation.
    """
    return from_past_files(output, config, tables, runs, now, lambda files: files.read_all(output))


def from_past_files(
    output: OutputFolder,
    config: AnnotateConfig,
    tables: Tables,
    runs: Sequence[RunRecord],
    now: dt.datetime,
    read: Callable[[PastFiles], T],
) -> T:
    """Return what `read` makes of the files with the images of `images_of`, also where an erasure replaces files meanwhile."""
    runs = matching_runs(config, tables, runs)
    since = now - dt.timedelta(days=config.retry_days)
    retry = {run.run_id for run in runs if config.retry_days and run.finished_at >= since}
    key = ROW_ID if config.keep_columns else "image_id"
    while True:
        try:
            current = table_format.files_of(output, runs) if runs else None
            if current is not None:
                return read(PastFiles(current, retry, {run.run_id for run in runs}, key))
            return read(PastFiles([file for run in runs for file in run.files], retry, key=key))
        except UserError:  # an erasure may have replaced files meanwhile
            found = {run.run_id: run for run in past_runs(output)}
            before, runs = runs, [found.get(run.run_id, run) for run in runs]
            if runs == before:
                raise


def matching_runs(config: AnnotateConfig, tables: Tables, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return those of the runs whose images a run of these settings need not annotate again."""
    if config.reannotate:
        return []
    schemes = {scheme.name for scheme in tables.schemes}
    zero_shot = tables.zero_shot_digests.items()
    kept = set(Keep(config.keep_columns).columns)
    return [
        run
        for run in runs
        if (run.model, run.tower) == (tables.model, tables.tower)
        and schemes <= set(run.schemes)
        and zero_shot <= run.zero_shot.items()  # the scheme's file may have changed since
        and (run.config.get("keep_embeddings") or not config.keep_embeddings)
        and (run.kept_columns == kept or not kept)
    ]
