"""The output as a Delta table: OUTPUT/annotations with a log, in which one commit makes all of a run's files visible.

The rows are not written again: the commit names files that the run wrote already. A run is added after its record was created, so
that what is in the log is always one driver's, whose files stay. A driver that dies in between leaves a run that the log lacks: every
later run into the output adds what is missing, and so does the same command given again. With its files a run's id is put into the
log, as a transaction of an application, and of two commits that bring the same id the second is refused: no run is added twice, also
where its files were replaced by compacted ones.
"""

import datetime as dt
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from io import SEEK_END
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from s3fs import S3FileSystem
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from pipeline.commit import part_of
from pipeline.config import AnnotateConfig
from pipeline.errors import StorageError, UserError
from pipeline.history import past_runs
from pipeline.storage import LOCAL, Options, connect, listed, open_file
from pipeline.table import Tables
from pipeline.threads import mapped
from pipeline.uris import protocol, scrubbed, without_secrets
from ugrie.errors import one_line

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.schema import Field
    from deltalake.transaction import AddAction

FILE_BYTES = 256 * 2**20  # of a compacted file
PARTITION = "dt"
PROTOCOLS = ("file", "local", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")  # which fsspec and deltalake mean the same by
# The log says how many rows each file has, and not what its values are at least and at most: where it says that of some columns, and they
# are not all that a file has, deltalake's reader by way of PyArrow (1.6) finds nothing by the others. Nor does it once files are compacted.
PROPERTIES = {"delta.dataSkippingNumIndexedCols": "0"}
FOUND = ("env", "iam-role", "container-role", "assume-role-with-web-identity")  # where both botocore and deltalake look for a key
COLOUR = re.compile(r"\x1b\[[0-9;]*m|↳")
TRACE = re.compile(r"<\?xml|Stack backtrace|\n\s*0: ")
THREADS = 16  # which wait for storage, most of the time
ATTEMPTS = 12  # at a commit that others are ahead of


def is_table(fs: fsspec.AbstractFileSystem, root: str) -> bool:
    """Whether an output has a log, so that its readers see what that lists, and nothing else."""
    try:
        return listed(fs, root, lambda: fs.exists(f"{root}/annotations/_delta_log"))
    except Exception as error:  # storage clients raise kinds of their own
        raise UserError(f"the output can't be read: {error or type(error).__name__}; check the path and the credentials") from None


def check(config: AnnotateConfig, tables: Tables) -> None:
    """Whether a run can be added once it is done, with all that were committed before. Writes nothing. Raises UserError."""
    if config.table_format != "delta":
        fs, root = connect(config.output, config.storage_options)
        if is_table(fs, root.rstrip("/")):
            raise UserError(f"{_shown(config.output)} is a Delta table, whose readers would not see this run: give --table-format delta")
        return
    if config.keep_embeddings:
        raise UserError("keep_embeddings: a Delta table has no type for embeddings (float16): leave it out, or take table_format = parquet")
    log = _Log(config.output, config.storage_options)
    log.new_columns([("this run", tables.output), *((file, schema) for file, schema, _ in log.files(log.missing()))])


def add(output: str, options: Options) -> None:
    """Adds all committed runs that the table lacks, by one commit. Where there is no table yet, it is made. Raises UserError, StorageError.

    Of several that add the same at once, one does.
    """
    _installed()
    from deltalake.exceptions import DeltaError

    attempts = Retrying(
        retry=retry_if_exception_type(DeltaError), stop=stop_after_attempt(ATTEMPTS), wait=wait_random_exponential(0.1, 5), reraise=True
    )
    try:
        attempts(lambda: _Log(output, options).add_missing())
    except (DeltaError, OSError) as error:
        raise StorageError(f"{_shown(output)} can't be written as a Delta table: {_told(error, options)}") from None


def files(output: str, options: Options) -> set[str]:
    """The files that the table consists of now: paths within the output. Raises UserError."""
    return _Log(output, options).there


def files_of(output: str, options: Options, runs: Sequence[dict[str, Any]]) -> list[str]:
    """The files that hold these committed runs' rows now: paths within the output. There may be rows of other runs in them.

    Those of a run that is not in the table yet are there as well. Raises UserError.
    """
    log = _Log(output, options)
    missing = [file for run in log.missing(runs) for file in run["files"]]
    own = [file for run in runs for file in run["files"] if file in log.there]
    return sorted({*own, *missing, *(file for file in log.there if part_of(file) is None)})


def compact(output: str, options: Options, before: dt.date | None) -> dict[str, Any]:
    """Gathers the small files of each partition, or of those before a date, into large ones; what they replace stays where it is.

    Returns what was done, as deltalake says it. Raises UserError, StorageError.
    """
    fs, root = connect(output, options)
    if not is_table(fs, root.rstrip("/")):
        raise UserError(f"{_shown(output)} is no Delta table: a run with --table-format delta makes one of it")
    add(output, options)
    from deltalake.exceptions import DeltaError

    table = _Log(output, options).table
    assert table is not None
    nights: Any = None if before is None else [(PARTITION, "<", before.isoformat())]
    try:
        return table.optimize.compact(partition_filters=nights, target_size=FILE_BYTES)
    except (DeltaError, OSError) as error:
        raise StorageError(f"{_shown(output)} was not compacted, and is as it was: {_told(error, options)}") from None


class _Log:
    """An output's log as it is now: the table, if there is one, and which files it has. Raises UserError where there can't be one."""

    def __init__(self, output: str, options: Options):
        _installed()
        self.fs, root = connect(output, options)
        self.root = root.rstrip("/")
        self.given, self.shown = options, _shown(output)
        if protocol(output) not in PROTOCOLS:
            raise UserError(f"{self.shown} can't be a Delta table: deltalake reaches local disks, {', '.join(PROTOCOLS[2:])}")
        if unquote(self.root) != self.root or "\\" in self.root:
            raise UserError(f"{self.shown} can't be a Delta table: deltalake takes no path with a backslash, or with % and two digits")
        self.uri = f"{self.root}/annotations" if protocol(output) in LOCAL else self.fs.unstrip_protocol(f"{self.root}/annotations")
        with self._readable():
            self.options = storage_options(self.fs)
            self.table = self._open()
            self.there = {f"annotations/{path}" for path in _paths(self.table)}

    def _open(self) -> "DeltaTable | None":
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            table = DeltaTable(self.uri, storage_options=self.options)
        except TableNotFoundError:
            return None
        if table.metadata().partition_columns != [PARTITION]:
            raise UserError(f"{self.shown} is a Delta table of another kind, not partitioned by {PARTITION}: take another output")
        return table

    def missing(self, runs: Sequence[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        """The records of those committed runs, of all by default, that have rows and are not in the table."""
        table = self.table
        found = [run for run in (past_runs(self.fs, self.root) if runs is None else runs) if not self.there.issuperset(run["files"])]
        if table is None:
            return found
        with self._readable():  # of a run whose files others have replaced, the log still has the id
            versions = list(mapped(lambda run: table.transaction_version(run["run_id"]), found, THREADS))
        return [run for run, version in zip(found, versions, strict=True) if version is None]

    def add_missing(self) -> None:
        """Raises CommitFailedError, or another DeltaError, where a commit came in between."""
        from deltalake import CommitProperties, Schema, Transaction
        from deltalake.transaction import create_table_with_add_actions

        runs = self.missing()
        if not runs:
            return
        found = list(self.files(runs))
        columns = self.new_columns((file, schema) for file, schema, _ in found)
        actions = [action for _, _, action in found]
        ids = CommitProperties(app_transactions=[Transaction(run["run_id"], 1) for run in runs])
        if self.table is None:
            create_table_with_add_actions(
                self.uri,
                Schema(columns),
                actions,
                partition_by=[PARTITION],
                configuration=PROPERTIES,
                storage_options=self.options,
                commit_properties=ids,
            )
            return
        if columns:
            self.table.alter.add_columns(columns)
        self.table.create_write_transaction([*actions], "append", self.table.schema(), [PARTITION], commit_properties=ids)

    def files(self, runs: Iterable[dict[str, Any]]) -> "Iterator[tuple[str, pa.Schema, AddAction]]":
        """The runs' files, the schema of each, and what the log is to say of it."""
        named = [(file, run) for run in runs for file in run["files"]]
        return mapped(lambda each: self._file(*each), named, THREADS)

    def _file(self, file: str, run: dict[str, Any]) -> "tuple[str, pa.Schema, AddAction]":
        from deltalake.transaction import AddAction

        try:
            with open_file(self.fs, f"{self.root}/{file}") as opened:
                parquet = pq.ParquetFile(opened)
                schema, rows, size = parquet.schema_arrow, parquet.metadata.num_rows, opened.seek(0, SEEK_END)
        except (OSError, pa.ArrowException) as error:
            problem = one_line(str(error)) or type(error).__name__
            raise UserError(f"{file} can't be read ({problem}), and a run's record lists it: restore it, or remove the record") from None
        finished = dt.datetime.fromisoformat(run["finished_at"]).timestamp()
        return (
            file,
            schema,
            AddAction(
                path=file.removeprefix("annotations/"),
                size=size,
                partition_values={PARTITION: run["date"]},
                modification_time=int(1000 * finished),
                data_change=True,
                stats=json.dumps({"numRecords": rows}),
            ),
        )

    def new_columns(self, schemas: Iterable[tuple[str, pa.Schema]]) -> "list[Field]":
        """The columns of these files that the table lacks. Raises UserError where one is there, and means something else."""
        before = {field.name: field for field in self.table.schema().fields} if self.table else {}
        known = dict(before)
        for whose, schema in schemas:
            for field in self._columns(whose, schema):
                there = known.setdefault(field.name, field)
                if there.type != field.type:
                    what = f"its column {field.name} is of another type"
                elif there.metadata.get("ugrie") != field.metadata.get("ugrie"):
                    what = f"its scheme {field.name} has other labels"
                else:
                    continue
                raise UserError(f"{whose} can't be added to the Delta table {self.shown}: {what} than there; take another output")
        return [field for name, field in known.items() if name not in before]

    def _columns(self, whose: str, schema: pa.Schema) -> "list[Field]":
        """As the log declares them. A scheme's has its labels with it, since a file loses its metadata when it is compacted."""
        from deltalake import Schema

        if "embedding" in schema.names:
            raise UserError(f"{whose} holds embeddings, for which a Delta table has no type (float16): take another output")
        schemes = json.loads((schema.metadata or {}).get(b"ugrie", b"{}")).get("schemes", {})
        fields = [
            field.with_metadata({"ugrie": json.dumps(schemes[field.name], ensure_ascii=False)}) if field.name in schemes else field
            for field in schema
        ]
        return Schema.from_arrow(pa.schema([*fields, pa.field(PARTITION, pa.date32())])).fields

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # deltalake's and the storage clients' have no kind in common
            raise UserError(f"{self.shown} can't be read as a Delta table: {_told(error, self.given)}") from None


def storage_options(fs: fsspec.AbstractFileSystem) -> dict[str, str]:
    """What deltalake has to be told to reach the storage that fsspec reaches, with the same key.

    Of S3 that is the endpoint, and the key that botocore has found, from options, a profile or a login, but where deltalake finds it as
    well and can renew it. What else there is, and all of other storages, deltalake reads from variables of the environment.
    """
    if not isinstance(fs, S3FileSystem):
        return {}
    fs.connect()
    endpoint, credentials = fs._s3.meta.endpoint_url, fs._s3._get_credentials()
    own = not (urlsplit(endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))
    told = credentials is not None and credentials.method not in FOUND
    key = fsspec.asyn.sync(fs.loop, credentials.get_frozen_credentials) if told else None
    other = "" if "AWS_SESSION_TOKEN" in os.environ else None  # which deltalake would take along with this key
    found = {
        "aws_access_key_id": key and key.access_key,
        "aws_secret_access_key": key and key.secret_key,
        "aws_session_token": key and (key.token or other),
        "aws_skip_signature": "true" if fs.anon else None,
        "aws_region": fs.client_kwargs.get("region_name"),
        "aws_endpoint_url": endpoint if own else None,
        "aws_allow_http": "true" if own and endpoint.startswith("http://") else None,
        "aws_conditional_put": "etag",
    }
    return {name: value for name, value in found.items() if value is not None}


def _installed() -> None:
    if find_spec("deltalake") is None:
        raise UserError("a Delta table needs deltalake: pip install 'ugrie[delta]'")


def _shown(output: str) -> str:
    return f"{without_secrets(output).rstrip('/')}/annotations"


def _paths(table: "DeltaTable | None") -> list[str]:
    return pa.table(table.get_add_actions())["path"].to_pylist() if table else []


def _told(error: Exception, options: Options) -> str:
    """What deltalake says, without colours, traces and the pages that servers send."""
    text = TRACE.split(COLOUR.sub("", str(error)), maxsplit=1)[0]
    return one_line(scrubbed(text, options), 400) or type(error).__name__
