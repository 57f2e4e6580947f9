"""Erases images from an output: their rows from the table's files, from unfinished runs, and from pages (`ugrie clean --erase`).

Each run is changed at once, by its record. Its files are written again without the rows, under new names. Then the record is replaced by
one that lists those (in new lists, where they are thousands), with new counts, then the files in the table's own log, where it has one,
and then the old files are removed. Whoever reads by the records, or by the log, sees the run as it was before or as it is after. If this
dies, the same command finishes it (`pipeline.table.journal`).
"""

import datetime as dt
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.erasure import pages, unfinished
from pipeline.erasure.counts import ErasedCounts
from pipeline.erasure.rows import Entries, Named, find, rewrite
from pipeline.errors import StorageError, UserError
from pipeline.maintenance.vacuum import leftovers
from pipeline.maintenance.vacuum import remove as remove_leftovers
from pipeline.storage.uris import public_message
from pipeline.table.commit import part_of, part_prefix
from pipeline.table.journal import Journal, Unit, alone
from pipeline.table.output_folder import ANNOTATIONS, OutputFolder, record_path
from pipeline.table.run_record import Erasure, RunRecord, past_runs, read_record
from pipeline.table.schema import SchemeMetadata
from pipeline.table.suppressed import Suppressed, SuppressList
from pipeline.table_formats import table_format
from pipeline.table_formats.iceberg_rewrite import PREFIX

FOREVER = dt.timedelta(days=36_500)


class TableFormat(Protocol):
    """A table format with a log of its own, beside the records, as a module."""

    def is_table(self, output: OutputFolder) -> bool:
        """Return whether an output has such a log."""

    def check_erasable(self, output: OutputFolder) -> None:
        """Raise UserError where `replace` would refuse."""

    def add(self, output: OutputFolder) -> None:
        """Add all committed runs that the log lacks."""

    def files(self, output: OutputFolder) -> set[str]:
        """Return the files that the log lists now: paths within the output."""

    def earlier_files(self, output: OutputFolder) -> set[str]:
        """Return the files that only earlier versions have, and that are not removed before `replace` has replaced them by none."""

    def schemes(self, output: OutputFolder) -> dict[str, SchemeMetadata]:
        """Return the schemes that the log describes, for files that don't."""

    def replace(self, output: OutputFolder, replaced: Mapping[str, str | None]) -> None:
        """Replace files by others, or by none, in one commit; those that the log lacks are passed over.

        Then no earlier version has them whose files must stay. After a crash, the same call makes the rest.
        """


@dataclass(frozen=True)
class Erased:
    """What is erased of a run, or of files that hold rows of several (`run_id` is None); `rows` are those of `of`."""

    run_id: str | None
    date: dt.date | None  # None for a run that is not committed
    rows: int
    of: int
    files: int


@dataclass
class EraseJob:
    """An erasure. `remaining` says what it could not erase, a line each; `pages` are those that showed something of it."""

    output: OutputFolder
    about: SuppressList
    suppressed: Suppressed
    remaining: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.entries = Entries(self.suppressed)

    def preview(self) -> Iterator[Erased]:
        """Yield what would be erased, and change nothing. Raises UserError, StorageError."""
        self._check()
        for run in unfinished.unfinished_runs(self.output, self.entries):
            yield from _of_unfinished(run)
        for record in sorted(past_runs(self.output), key=lambda run: run.order):
            if found := find(self.output, record.files, self.entries):
                self._note_pages(record)
                yield _of_run(record, found)
        for log in self._logs():
            yield from map(_of_file, find(self.output, sorted(log.files(self.output) - self._listed_by_records()), self.entries))

    def run(self) -> Iterator[Erased]:
        """Erase, and yield what was erased. Raises UserError, before anything is changed, and StorageError."""
        self._check()
        with _explained(self.output), alone(self.output, "ugrie clean --erase") as (journal, before, of_pages):
            self.pages = of_pages
            self._recover(before)
            journal.note(Unit(), self.pages)
            committing: list[str] = []
            for run in unfinished.unfinished_runs(self.output, self.entries):
                unfinished.erase(self.output, run, self.about, self.suppressed)
                if unfinished.may_be_committing(self.output, run.run_id):
                    committing.append(run.run_id)
                if run.rows and run.from_embeddings:
                    self.remaining.append(f"run {run.run_id} annotates embeddings again: finish it, or remove it by `ugrie clean`")
                yield from _of_unfinished(run)
            done: set[str] = set()
            while new := [run for run in past_runs(self.output, but=done) if run.run_id not in done]:
                for log in self._logs():
                    log.add(self.output)
                for record in sorted(new, key=lambda run: run.order):
                    yield from self._erase_run(journal, record.run_id)
                done |= {record.run_id for record in new}
            for log in self._logs():
                yield from self._erase_log(journal, log)
                self._erase_earlier(journal, log)
            self._sweep()
            for run_id in committing:
                if run_id not in done and not self.output.exists(record_path(run_id)):
                    self.remaining.append(f"run {run_id} was about to be committed: finish it, or remove it by `ugrie clean`")
            pages.write(self.output, self.pages, with_index=bool(done))
            journal.note(Unit(), [])

    def _check(self) -> None:
        """Raise UserError where the output's table can't be changed."""
        for log in self._logs():
            log.check_erasable(self.output)

    def _erase_run(self, journal: Journal, run_id: str) -> Iterator[Erased]:
        """Erase the rows of a committed run."""
        if (record := self._record(run_id)) is None or not (found := find(self.output, record.files, self.entries)):
            return
        self._note_pages(record)
        attempt = uuid.uuid4().hex[:8]
        prefix = part_prefix(record.date, run_id, attempt)
        files = {each.file: f"{prefix}-{i:05}.parquet" if each.named < each.rows else None for i, each in enumerate(found)}
        after = record.with_files([new for file in record.files if (new := files.get(file, file)) is not None], attempt)
        unit = Unit(run_id, files, (*record.file_lists, *after.file_lists))
        journal.note(unit, self.pages)
        counts = ErasedCounts()
        for old, new in unit.files.items():
            for erased in rewrite(self.output, old, new, self.suppressed).values():
                counts.merge(erased)
        after.write_lists(self.output)
        journal.check()
        self._write_record(after, counts)
        for log in self._logs():
            log.replace(self.output, unit.files)
        pages.remove(self.output, self.pages)
        journal.check()
        self._remove_unlisted(unit)
        journal.note(Unit(), self.pages)
        yield _of_run(record, found)

    def _erase_log(self, journal: Journal, log: TableFormat) -> Iterator[Erased]:
        """Erase the rows of files that the log lists and no record: those of a compaction. They may be rows of several runs."""
        while found := find(self.output, sorted(log.files(self.output) - self._listed_by_records()), self.entries):
            unit = Unit(None, {each.file: _new_name(each.file) if each.named < each.rows else None for each in found})
            journal.note(unit, self.pages)
            schemes = log.schemes(self.output)
            counts: dict[str, ErasedCounts] = {}
            for old, new in unit.files.items():
                for run_id, erased in rewrite(self.output, old, new, self.suppressed, schemes).items():
                    counts.setdefault(run_id, ErasedCounts()).merge(erased)
            journal.check()
            log.replace(self.output, unit.files)
            journal.check()
            self._remove_unlisted(unit)
            for run_id, erased in counts.items():
                self._count_erased(run_id, erased)
            journal.note(Unit(), self.pages)
            yield from map(_of_file, found)

    def _erase_earlier(self, journal: Journal, log: TableFormat) -> None:
        """Remove the files with rows to erase that only earlier versions of a table have."""
        found = find(self.output, sorted(log.earlier_files(self.output) - self._listed_by_records()), self.entries)
        if not found:
            return
        unit = Unit(None, {each.file: None for each in found})
        journal.note(unit, self.pages)
        log.replace(self.output, unit.files)
        journal.check()
        self._remove_unlisted(unit)
        journal.note(Unit(), self.pages)

    def _recover(self, before: Unit) -> None:
        """Finish what an erasure that died was replacing, or take it back if its record, or the log's commit, was not made."""
        for log in self._logs() if before.files else []:
            listed = log.files(self.output) if before.run_id is None else self._paths_of(before.run_id)
            if not listed & set(before.files):
                log.replace(self.output, before.files)
        self._remove_unlisted(before, *(log.earlier_files(self.output) for log in self._logs()))
        pages.remove(self.output, self.pages)

    def _remove_unlisted(self, unit: Unit, *kept: set[str]) -> None:
        """Remove those of a unit's files and lists, old and new, that neither records nor logs list, nor are among some others."""
        listed = self._listed_by_records() if unit.run_id is None else self._paths_of(unit.run_id)
        listed = listed.union(*kept, *(log.files(self.output) for log in self._logs()))
        for file in unit.paths - listed:
            with suppress(FileNotFoundError):
                self.output.remove(file)

    def _write_record(self, record: RunRecord, erased: ErasedCounts) -> None:
        """Replace a run's record by this one, without the counts of the erased rows."""
        entry = Erasure(at=dt.datetime.now(dt.UTC).replace(microsecond=0), sha256=self.about.sha256, rows=erased.rows)
        changes = {"counts": erased.taken_off(record.counts), "erasures": (*record.erasures, entry)}
        self.output.write(record_path(record.run_id), record.model_copy(update=changes).to_json())

    def _count_erased(self, run_id: str, erased: ErasedCounts) -> None:
        """Take rows of a compacted file off the counts of their run, if it has no files of its own any more: a vacuum has removed them."""
        record = self._record(run_id)
        if record is not None and not any(self.output.exists(file) for file in record.files):
            self._write_record(record, erased)

    def _sweep(self) -> None:
        """Remove what committed runs left, and files with rows to erase that are of no version of a table that its log lists now.

        What others have put there, or runs that are not committed, stays, and is named.
        """
        with self.output.readable():
            there = [f"{ANNOTATIONS}/{name}" for name in self.output.find(ANNOTATIONS) if name.endswith(".parquet")]
        logs = self._logs()
        in_records = self._listed_by_records()
        listed = in_records.union(*(log.files(self.output) | log.earlier_files(self.output) for log in logs))
        # Pages are written from the files of records, also where a table has them no longer.
        for _ in remove_leftovers(self.output, [each for each in leftovers(self.output, FOREVER) if each.path not in in_records]):
            pass
        for path in there:
            if path in listed or "/_delta_log/" in path or not self.output.exists(path):
                continue
            try:
                found = find(self.output, [path], self.entries)
            except StorageError as error:
                self.remaining.append(f"{error}: it may hold rows, and no record lists it")
                continue
            owner = part_of(path)
            if found and owner is None and logs:
                self.output.remove(path)
            elif found:
                whose = f"run {owner} is not committed: finish it, or remove it by `ugrie clean`" if owner else "no run wrote it: remove it"
                self.remaining.append(f"{found[0].named:,} rows of {self.output.absolute(path)} stay, since {whose}")

    def _note_pages(self, record: RunRecord) -> None:
        self.pages += [page for page in pages.pages_of(self.output, record) if page not in self.pages]

    def _logs(self) -> list[TableFormat]:
        return [log for log in table_format.FORMATS.values() if log.is_table(self.output)]

    def _record(self, run_id: str) -> RunRecord | None:
        """Return a run's record as it is now; None where it was removed."""
        try:
            return read_record(self.output, record_path(run_id))
        except FileNotFoundError:
            return None

    def _paths_of(self, run_id: str) -> set[str]:
        record = self._record(run_id)
        return set() if record is None else record.paths

    def _listed_by_records(self) -> set[str]:
        return set[str]().union(*(record.paths for record in past_runs(self.output)))


def _new_name(file: str) -> str:
    """Return another name in the folder of a file that holds rows of several runs, by which `ugrie clean` knows it as it does the file."""
    folder, _, name = file.rpartition("/")
    new = f"{PREFIX}{uuid.uuid4().hex[:8]}-00000" if name.startswith(PREFIX) else f"rest-{uuid.uuid4().hex}"
    return f"{folder}/{new}.parquet"


def _of_unfinished(run: unfinished.UnfinishedRun) -> Iterator[Erased]:
    if files := len(run.manifests) + len(run.blocks):
        yield Erased(run.run_id, None, len(run.image_ids), len(run.image_ids), files)


def _of_run(record: RunRecord, found: list[Named]) -> Erased:
    return Erased(record.run_id, record.date, sum(each.named for each in found), record.counts.rows, len(found))


def _of_file(found: Named) -> Erased:
    day = dt.date.fromisoformat(found.file.partition("dt=")[2][:10])
    return Erased(None, day, found.named, found.rows, 1)


@contextmanager
def _explained(output: OutputFolder) -> Iterator[None]:
    """Turn an error of storage into a StorageError that says how to go on."""
    try:
        yield
    except (UserError, StorageError):
        raise
    except Exception as error:  # storage clients raise kinds of their own
        message = public_message(error, output.options)
        raise StorageError(f"{message}; what is erased stays erased, and the same command does the rest") from None
