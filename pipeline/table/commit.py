"""Commits a run: creates its record, last of all, and removes what the run no longer needs.

    OUTPUT/annotations/dt=YYYY-MM-DD/part-<run_id>-<attempt>-00000.parquet
    OUTPUT/runs/<run_id>.files/<attempt>-00000.json     if there are thousands
    OUTPUT/runs/<run_id>.json

The record is created once every file is written and verified (`pipeline.stages.merge`), so a reader who starts from the records
never sees half a run. Each driver's files have their own names and only one record can be created: of two drivers of one run one
commits, and the files of the other are removed, as are those of a driver that died.
"""

import datetime as dt
import logging
import re
import uuid

from pipeline.storage.uris import public_message
from pipeline.table import journal
from pipeline.table.output_folder import OutputFolder, lists_folder, partition, record_path, work_folder
from pipeline.table.run_record import RunRecord, read_record

logger = logging.getLogger(__name__)

PART = re.compile(r"\.?part-(?P<run>.+)-[0-9a-f]{8}-\d{5}\.parquet(\.[0-9a-f]{32})?")


def part_prefix(date: dt.date, run_id: str, attempt: str) -> str:
    """Return how the paths of the files begin that one driver of a run writes; `-00000.parquet` and so on follow."""
    return f"{partition(date)}/part-{run_id}-{attempt}"


def committing_path(run_id: str) -> str:
    """Return the path of the mark that a driver looks for lists of images to leave out once more, and then commits the run."""
    return f"{work_folder(run_id)}/committing"


def part_of(path: str) -> str | None:
    """Return the ID of the run that wrote a file of the table, or a draft of one; None for any other file."""
    named = PART.fullmatch(path.rpartition("/")[2])
    return named and named["run"]


def commit(output: OutputFolder, record: RunRecord) -> RunRecord:
    """Create the record: from here on the run's files are part of the table. Return it, or another driver's that was first."""
    path = record_path(record.run_id)
    record = record.with_files(record.files, uuid.uuid4().hex[:8])
    record.write_lists(output)
    return record if output.create(path, record.to_json()) else read_record(output, path)


def tidy(output: OutputFolder, record: RunRecord) -> None:
    """Remove a committed run's work folder, and the files, and lists of files, of its drivers that did not commit it."""
    folder = partition(record.date)
    try:
        own = [f"{folder}/{name}" for name in output.names(folder) if part_of(name) == record.run_id]
        if record.file_lists:
            lists = lists_folder(record.run_id)
            own += [f"{lists}/{name}" for name in output.names(lists)]
        if not record.paths.issuperset(own):
            kept = journal.replaced_files(output)
            kept.update(read_record(output, record_path(record.run_id)).paths)  # an erasure may have replaced some
            for file in own:
                if file not in kept:
                    output.remove(file)
        if output.exists(work_folder(record.run_id)):
            output.remove(work_folder(record.run_id), recursive=True)
    except Exception as error:  # the run is committed; left-overs do no harm
        message = public_message(error, output.options)
        logger.warning("run %s is committed, but its left-overs could not all be removed (%s): run `ugrie clean`", record.run_id, message)
