"""The output as a Delta table: OUTPUT/annotations with a log, in which one commit makes all of a run's files visible.

The rows are not written again: the commit names files that the run wrote already. A run is added after its record was created, so
that what is in the log is always one driver's, whose files stay. A driver that dies in between leaves a run that the log lacks: every
later run into the output adds what is missing, and so does the same command given again. With its files a run's id is put into the
log, as a transaction of an application, and of two commits that bring the same id the second is refused: no run is added twice, also
where its files were replaced by compacted ones.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import fsspec
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from pipeline.config import AnnotateConfig
from pipeline.errors import StorageError, UserError
from pipeline.storage.files import listed
from pipeline.storage.filesystem import Options, connect
from pipeline.table.commit import part_of
from pipeline.table.delta_log import PARTITION, DeltaLog, installed, shown
from pipeline.table.delta_storage import told
from pipeline.table.schema import Tables

FILE_BYTES = 256 * 2**20  # of a compacted file
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
            raise UserError(f"{shown(config.output)} is a Delta table, whose readers would not see this run: give --table-format delta")
        return
    if config.keep_embeddings:
        raise UserError("keep_embeddings: a Delta table has no type for embeddings (float16): leave it out, or take table_format = parquet")
    log = DeltaLog(config.output, config.storage_options)
    log.new_columns([("this run", tables.output), *((file, schema) for file, schema, _ in log.files(log.missing()))])


def add(output: str, options: Options) -> None:
    """Adds all committed runs that the table lacks, by one commit. Where there is no table yet, it is made. Raises UserError, StorageError.

    Of several that add the same at once, one does.
    """
    installed()
    from deltalake.exceptions import DeltaError

    attempts = Retrying(
        retry=retry_if_exception_type(DeltaError), stop=stop_after_attempt(ATTEMPTS), wait=wait_random_exponential(0.1, 5), reraise=True
    )
    try:
        attempts(lambda: DeltaLog(output, options).add_missing())
    except (DeltaError, OSError) as error:
        raise StorageError(f"{shown(output)} can't be written as a Delta table: {told(error, options)}") from None


def files(output: str, options: Options) -> set[str]:
    """The files that the table consists of now: paths within the output. Raises UserError."""
    return DeltaLog(output, options).there


def files_of(output: str, options: Options, runs: Sequence[dict[str, Any]]) -> list[str]:
    """The files that hold these committed runs' rows now: paths within the output. There may be rows of other runs in them.

    Those of a run that is not in the table yet are there as well. Raises UserError.
    """
    log = DeltaLog(output, options)
    missing = [file for run in log.missing(runs) for file in run["files"]]
    own = [file for run in runs for file in run["files"] if file in log.there]
    return sorted({*own, *missing, *(file for file in log.there if part_of(file) is None)})


def compact(output: str, options: Options, before: dt.date | None) -> dict[str, Any]:
    """Gathers the small files of each partition, or of those before a date, into large ones; what they replace stays where it is.

    Returns what was done, as deltalake says it. Raises UserError, StorageError.
    """
    fs, root = connect(output, options)
    if not is_table(fs, root.rstrip("/")):
        raise UserError(f"{shown(output)} is no Delta table: a run with --table-format delta makes one of it")
    add(output, options)
    from deltalake.exceptions import DeltaError

    table = DeltaLog(output, options).table
    assert table is not None
    nights: Any = None if before is None else [(PARTITION, "<", before.isoformat())]
    try:
        return table.optimize.compact(partition_filters=nights, target_size=FILE_BYTES)
    except (DeltaError, OSError) as error:
        raise StorageError(f"{shown(output)} was not compacted, and is as it was: {told(error, options)}") from None
