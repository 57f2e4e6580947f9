"""The record of a committed run: what it annotated, with which settings, and the files that it added to the table.

OUTPUT/runs/<run_id>.json. Readers start from the records: a file that no record lists belongs to no committed run.

A record lists MAX_FILES files at most. Where a run has more, `file_lists` names files that list them, OUTPUT/runs/<run_id>.files/*.json,
and `files` is empty. The lists are written first, and never changed: a record with other files names other lists. Such a record states
LISTS_VERSION, so that a UGRIE that does not know of lists ends rather than miss the rows. Whoever reads a record by `read_record` or
`past_runs` has all of its files in `files`.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NoReturn

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from pipeline.errors import UserError
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import without_secrets
from pipeline.table.output_folder import RUNS, OutputFolder, lists_folder
from pipeline.table.schema import SCHEMA_VERSION
from pipeline.table.suppressed import SuppressList
from ugrie.text import one_line

THREADS = 16  # which wait for storage, most of the time
MAX_FILES = 4096  # in a record, and in a list
LISTS_VERSION = SCHEMA_VERSION + 1  # of a record that names lists of files; its rows are as in SCHEMA_VERSION


class _Version(BaseModel):
    """The one field that is read whatever the version."""

    schema_version: int = Field(ge=1)


class Duplicates(BaseModel):
    """Rows copied from another image's of the same bytes: of this run, or of earlier ones."""

    model_config = ConfigDict(frozen=True)

    run: int = 0
    earlier: int = 0

    @property
    def total(self) -> int:
        return self.run + self.earlier


class Counts(BaseModel):
    """Counts of a run: images listed, images known before, and rows written, by status, duplicate and label.

    `retried` are the rows of images that failed in an earlier run, by status; they are among the others' counts, too. `overtaken` are
    images that another run annotated while this one was under way, `suppressed` those on a list of `--suppress`: they were listed and have
    no row here. Nor have those that were `erased` since, which are in no count of rows. `left_out` counts by reason what is in the input
    and was not listed.
    """

    model_config = ConfigDict(frozen=True)

    listed: int = 0
    known: int = 0
    overtaken: int = 0
    suppressed: int = 0
    erased: int = 0
    left_out: dict[str, int] = {}
    rows: int = 0
    status: dict[str, int] = {}
    retried: dict[str, int] = {}
    reposts: Duplicates = Duplicates()
    labels: dict[str, dict[str, int]] = {}  # by scheme
    sums: dict[str, float] = {}  # by ordinal scheme, of the values; records of earlier versions have none

    @field_validator("sums")
    @classmethod
    def _rounded(cls, sums: dict[str, float]) -> dict[str, float]:
        return {name: round(total, 2) for name, total in sums.items()}  # whichever files the rows were divided into


class Erasure(BaseModel):
    """An erasure of rows after the commit (`ugrie clean --erase`): its list by the SHA-256 of the file, and how many rows went."""

    model_config = ConfigDict(frozen=True)

    at: AwareDatetime
    sha256: str
    rows: int


class FileList(BaseModel):
    """A list of files of a run: its own path, by which readers of all lists find those that a record names, and the files' paths."""

    file_list: str
    files: tuple[str, ...]


class RunRecord(BaseModel):
    """A committed run. `files` are paths within the output, also where they stand in `file_lists`; `schema_version` is that of the rows.

    `config` are its settings, without secrets.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    schema_version: int = SCHEMA_VERSION
    model: str  # name@digest
    tower: str | None = None  # the digest of the image tower, by which embeddings fit
    precision: str | None = None
    decoder: str | None = None  # the limits and versions that decide which images fail
    date: dt.date
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime
    input: str = ""
    schemes: dict[str, str]  # each one's kind: categorical or ordinal
    zero_shot: dict[str, str] = {}  # those that the model was not trained for, with the digest of what answered them
    suppressed: tuple[SuppressList, ...] = ()  # the lists of images that were left out
    erasures: tuple[Erasure, ...] = ()
    counts: Counts
    files: tuple[str, ...]
    file_lists: tuple[str, ...] = ()
    timings: dict[str, float | None] = {}
    tuning: dict[str, Any] = {}
    config: dict[str, Any]

    @field_validator("started_at", "finished_at")
    @classmethod
    def _whole_seconds(cls, time: dt.datetime | None) -> dt.datetime | None:
        return time and time.replace(microsecond=0)

    @field_serializer("started_at", "finished_at")
    def _to_seconds(self, time: dt.datetime | None) -> str | None:
        return None if time is None else time.isoformat(timespec="seconds")

    @property
    def order(self) -> tuple[dt.date, dt.datetime]:
        """Sort key of runs: the date, then the time of the commit."""
        return self.date, self.finished_at

    @property
    def kept_columns(self) -> set[str]:
        """The names of the columns kept from the input."""
        return {entry.partition("=")[0].strip() for entry in self.config.get("keep_columns") or ()}

    @property
    def paths(self) -> set[str]:
        """The paths of its files and of the lists of them: all that is kept since the run is committed."""
        return {*self.files, *self.file_lists}

    def with_files(self, files: Sequence[str], attempt: str) -> "RunRecord":
        """Return the record with these files; if they are too many, with lists, whose names no other `attempt` gives."""
        listed = len(files) > MAX_FILES and self.schema_version == SCHEMA_VERSION
        numbers = range(-(-len(files) // MAX_FILES) if listed else 0)
        lists = tuple(f"{lists_folder(self.run_id)}/{attempt}-{number:05}.json" for number in numbers)
        return self.model_copy(update={"files": tuple(files), "file_lists": lists})

    def write_lists(self, output: OutputFolder) -> None:
        """Write the lists of its files, if there are any, which must be there before the record is. Raises the storage's errors."""
        for number, path in enumerate(self.file_lists):
            files = self.files[number * MAX_FILES : (number + 1) * MAX_FILES]
            output.write(path, (FileList(file_list=path, files=files).model_dump_json(indent=1) + "\n").encode())

    def to_json(self) -> bytes:
        if not self.file_lists:
            return (self.model_dump_json(indent=1, exclude={"file_lists"}) + "\n").encode()
        short = self.model_copy(update={"files": (), "schema_version": LISTS_VERSION})
        return (short.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, path: str) -> "RunRecord":
        """Read a record, but not its lists. Raises UserError, which names `path`, where it is none or of a later schema version."""
        try:
            version = _Version.model_validate_json(data, strict=True).schema_version
            if version > LISTS_VERSION:
                raise UserError(
                    f"{path} was written by a newer UGRIE (schema version {version}; this one reads up to {LISTS_VERSION}): "
                    "upgrade UGRIE, or choose another output"
                )
            return cls.model_validate_json(data).model_copy(update={"schema_version": min(version, SCHEMA_VERSION)})
        except ValidationError as error:
            _refuse(path, "run record", error)


def _refuse(path: str, what: str, error: ValidationError) -> NoReturn:
    """Raise a UserError that names a file and the first of its problems."""
    problem = error.errors()[0]
    field = ".".join(map(str, problem["loc"]))
    raise UserError(f"{path} is no {what} ({field and f'{field}: '}{one_line(problem['msg'])}): repair it, or move it elsewhere") from None


def read_record(output: OutputFolder, path: str) -> RunRecord:
    """Read one record by its path within the output, with all of its files.

    Raises FileNotFoundError where there is no record, UserError, also where a list of its files is gone, and the storage's errors.
    """
    while True:
        record = RunRecord.from_json(output.read(path), output.absolute(path))
        try:
            files = [file for each in record.file_lists for file in _listed(output, each)]
        except FileNotFoundError as error:  # an erasure may have replaced the record and its lists meanwhile
            if RunRecord.from_json(output.read(path), output.absolute(path)) != record:
                continue
            lost = f"{output.absolute(path)} names {error.args[0]}, a list of its files, which is gone"
            raise UserError(f"{lost}: restore it, or remove the record, too") from None
        return record.model_copy(update={"files": tuple(files)}) if record.file_lists else record


def _listed(output: OutputFolder, path: str) -> tuple[str, ...]:
    """Return the files of a list. Raises FileNotFoundError with its path within the output."""
    try:
        return FileList.model_validate_json(output.read(path)).files
    except FileNotFoundError:
        raise FileNotFoundError(path) from None
    except ValidationError as error:
        _refuse(output.absolute(path), "list of a run's files", error)


def past_runs(output: OutputFolder, model: str | None = None, but: Collection[str] = ()) -> list[RunRecord]:
    """Return the records of committed runs, or of one model's ("name@digest"), the newest first; without those whose IDs are in `but`.

    Raises UserError where the output can't be read, or a file in OUTPUT/runs is no record that this version reads.
    """
    with output.readable():
        names = [name for name in output.names(RUNS) if name.endswith(".json")]
        paths = [f"{RUNS}/{name}" for name in names if name.removesuffix(".json") not in but]

    def record(path: str) -> RunRecord:
        with output.readable():
            return read_record(output, path)

    records: Iterable[RunRecord] = parallel_map(record, paths, THREADS)
    return sorted((each for each in records if model in (None, each.model)), key=lambda each: each.order, reverse=True)


def current_runs(output: OutputFolder, remedy: str) -> list[RunRecord]:
    """Return the records as `past_runs` does, where all are of this schema version, so that their image IDs are those of today.

    Raises UserError, which ends with the remedy, where one is of an earlier version.
    """
    runs = past_runs(output)
    for run in runs:
        if run.schema_version < SCHEMA_VERSION:
            holds = f"{without_secrets(output.uri)} holds runs of schema version {run.schema_version}, such as {run.run_id}"
            raise UserError(f"{holds}, whose image IDs are others than those of version {SCHEMA_VERSION}: {remedy}")
    return runs
