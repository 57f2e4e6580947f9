"""Warns, before a run begins, of files that no committed run owns and of runs that were not finished.

Only the run's own partition and the names of unfinished runs are listed. `ugrie clean` looks through all partitions.
"""

import logging
from collections.abc import Iterable

from pipeline.config import AnnotateConfig
from pipeline.table.commit import part_of
from pipeline.table.output_folder import RUNS, WORK, OutputFolder, partition, record_path
from pipeline.table.run_record import read_record
from pipeline.table_formats import delta

logger = logging.getLogger(__name__)
MOST_NAMED = 5


def warn(output: OutputFolder, config: AnnotateConfig) -> None:
    """Log a warning for each kind of orphan. Raises UserError where the output can't be read."""
    folder = partition(config.date)
    with output.readable():
        committed = {name.removesuffix(".json") for name in output.names(RUNS) if name.endswith(".json")}
        unfinished = {name for name in output.names(WORK) if name not in committed and not name.startswith("_")} - {config.run_id}
        found = [name for name in output.names(folder) if name.endswith(".parquet") and not name.startswith((".", "_"))]
        owners = {run_id for run_id in map(part_of, found) if run_id is not None}
        listed = {file for run_id in owners & committed for file in read_record(output, record_path(run_id)).files}
        seen = [] if not found or delta.is_table(output) else found  # readers of a Delta table see the files in its log, no others
    _log(
        unfinished,
        "not committed: run %s. It is running, or died: its rows don't count, and its images are annotated again, "
        "until the same command with its --run-id has finished it. `ugrie clean` removes what dead runs left",
    )
    _log(
        (f"{folder}/{name}" for name in seen if part_of(name) and f"{folder}/{name}" not in listed),
        "no run record lists the file %s. Readers that glob the table read its rows too; `ugrie clean` removes it",
    )
    _log(
        (f"{folder}/{name}" for name in seen if part_of(name) is None),
        "no run wrote the file %s. Readers that glob the table read it too: move it out of annotations/",
    )


def _log(names: Iterable[str], message: str) -> None:
    found = sorted(names)
    if found:
        more = f" and {len(found) - MOST_NAMED:,} more" if len(found) > MOST_NAMED else ""
        logger.warning(message, ", ".join(found[:MOST_NAMED]) + more)
