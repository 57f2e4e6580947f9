"""Finds and removes what dead runs left in an output, once it is old enough that no run can be using it."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import StorageError, UserError
from pipeline.storage.uris import public_message, without_secrets
from pipeline.table import journal
from pipeline.table.commit import part_of
from pipeline.table.output_folder import ANNOTATIONS, ICEBERG_NAME, RUNS, WORK, OutputFolder, lists_owner, work_folder
from pipeline.table.run_record import RunRecord, read_record
from pipeline.table_formats import delta, iceberg
from ugrie.text import one_line

LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass(frozen=True)
class Leftover:
    """An unfinished run's work folder, or a file of the table or list of files that no record names.

    `path` is within the output, `changed` its newest file's time (UTC).
    """

    path: str
    run_id: str
    files: int
    bytes: int
    changed: dt.datetime


def leftovers(output: OutputFolder, older_than: dt.timedelta) -> list[Leftover]:
    """List what no run needs any more. An uncommitted run is left alone until none of its files changed for `older_than`.

    Raises UserError where a record can't be read: its run's files would be mistaken for a dead run's.
    """
    with output.readable():
        entries = output.find()
    replaced = journal.replaced_files(output)
    records = _records(
        output, [path for path in entries if path.startswith(f"{RUNS}/") and path.endswith(".json") and not lists_owner(path)]
    )
    kept = replaced.union(*(record.files for record in records))
    if any(path.startswith(f"{ANNOTATIONS}/_delta_log/") for path in entries):
        kept |= delta.files(output)
    if ICEBERG_NAME in entries:  # files that were replaced stay as long as a snapshot has them
        kept = replaced | iceberg.kept_files(output, records)
    kept = kept.union(*(record.file_lists for record in records))
    found = [
        Leftover(path, run_id, len(files), sum(file["size"] or 0 for file in files), max(map(_changed, files)))
        for (run_id, path), files in sorted(_by_owner(entries, kept).items())
    ]
    newest: dict[str, dt.datetime] = {}
    for each in found:
        newest[each.run_id] = max(newest.get(each.run_id, LONG_AGO), each.changed)
    committed = {record.run_id for record in records}
    latest = dt.datetime.now(dt.UTC) - older_than
    return [each for each in found if each.run_id in committed or newest[each.run_id] <= latest]


def remove(output: OutputFolder, found: list[Leftover]) -> Iterator[Leftover]:
    """Remove leftovers one by one; yield each once it is gone. Raises StorageError."""
    for leftover in found:
        try:
            output.remove(leftover.path, recursive=True)
        except Exception as error:  # storage clients raise kinds of their own
            message = public_message(error, output.options)
            raise StorageError(f"{shown(output, leftover)} can't be removed: {message}; what was removed before is gone") from None
        yield leftover


def shown(output: OutputFolder, leftover: Leftover) -> str:
    """Return a leftover's path as one line without secrets: anyone may have named the files."""
    return one_line(without_secrets(output.absolute(leftover.path)))


def _records(output: OutputFolder, paths: list[str]) -> list[RunRecord]:
    try:
        return [read_record(output, path) for path in paths]
    except (OSError, UserError) as error:
        raise UserError(f"{error}; nothing was removed") from None


def _by_owner(entries: dict[str, dict[str, Any]], kept: set[str]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Group the files, and lists of files, that no record lists by run and by what is removed at once: a work folder, or the file alone."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path, entry in entries.items():
        folder, _, rest = path.partition("/")
        if folder == WORK and "/" in rest and not rest.startswith("_"):
            run_id = rest.partition("/")[0]
            groups.setdefault((run_id, work_folder(run_id)), []).append(entry)
        elif path not in kept:
            owner = part_of(path) or iceberg.writer_of(path) if folder == ANNOTATIONS else lists_owner(path)
            if owner:
                groups.setdefault((owner, path), []).append(entry)
    return groups


def _changed(entry: dict[str, Any]) -> dt.datetime:
    """Return when a file was last written; now, where the storage does not say, so that it is never too old."""
    value = entry.get("LastModified") or entry.get("last_modified") or entry.get("updated") or entry.get("mtime") or entry.get("created")
    if isinstance(value, int | float):
        return dt.datetime.fromtimestamp(value, dt.UTC)
    if isinstance(value, str):
        value = dt.datetime.fromisoformat(value)
    return value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else dt.datetime.now(dt.UTC)
