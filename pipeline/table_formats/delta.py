"""The output as a Delta table: OUTPUT/annotations with a log, in which one commit makes all files of a run visible.

Rows are not written again: the commit names the files that the run wrote. A run is added after its record was created, so that the
log holds the files of one driver, and those stay. A driver that dies in between leaves a run that the log lacks: every later run into
the output adds what is missing, and so does the same command given again. The log keeps a run's ID with its files, as a transaction of
an application. Of two commits that bring the same ID the second is refused: no run is added twice, also where its files were replaced
by compacted ones.
"""

import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from pipeline.config import AnnotateConfig
from pipeline.errors import StorageError
from pipeline.table.output_folder import ANNOTATIONS, OutputFolder
from pipeline.table.schema import SchemeMetadata, Tables
from pipeline.table_formats.delta_log import PARTITION, DeltaLog, check_installed, table_name
from pipeline.table_formats.delta_storage import explain

FILE_BYTES = 256 * 2**20  # of a compacted file
ATTEMPTS = 12  # to commit, where other writers come first


def open_log(output: OutputFolder) -> DeltaLog:
    """Open the table's log as it is now; empty where there is none. Raises UserError."""
    return DeltaLog(output)


def is_table(output: OutputFolder) -> bool:
    """Return whether an output has a Delta log, so that its readers see the files listed there and no others. Raises UserError."""
    with output.readable():
        return output.exists(f"{ANNOTATIONS}/_delta_log")


def check(config: AnnotateConfig, tables: Tables) -> None:
    """Check that a run can be added once it is done, with all runs committed before. Writes nothing. Raises UserError."""
    log = open_log(OutputFolder(config.output, config.storage_options))
    log.new_columns([("this run", tables.output), *((file, schema) for file, schema, _ in log.files(log.missing()))])


def add(output: OutputFolder) -> None:
    """Add all committed runs that the table lacks, in one commit; create the table where there is none.

    Of several processes that add the same at once, one does. Raises UserError, StorageError.
    """
    _commit(output, lambda log: log.add_missing())


def schemes(output: OutputFolder) -> dict[str, SchemeMetadata]:
    """Return the schemes of the table's columns. Raises UserError."""
    table = open_log(output).table
    about = {field.name: field.metadata.get("ugrie") for field in table.schema().fields} if table else {}
    return {name: SchemeMetadata(**json.loads(text)) for name, text in about.items() if text}


def check_erasable(output: OutputFolder) -> None:
    """Raise UserError where `replace` would refuse the table."""
    open_log(output).check_features()


def replace(output: OutputFolder, replaced: Mapping[str, str | None]) -> None:
    """Replace files of the table by others, or by none, in one commit; those that it lacks are passed over. Paths are within the output.

    Raises UserError, StorageError.
    """
    _commit(output, lambda log: log.replace(replaced))


def _commit(output: OutputFolder, change: Callable[[DeltaLog], None]) -> None:
    """Make a commit to the log as it is then; where another comes first, look again. Raises UserError, StorageError."""
    check_installed()
    from deltalake.exceptions import DeltaError

    attempts = Retrying(
        retry=retry_if_exception_type(DeltaError), stop=stop_after_attempt(ATTEMPTS), wait=wait_random_exponential(0.1, 5), reraise=True
    )
    try:
        attempts(lambda: change(open_log(output)))
    except (DeltaError, OSError) as error:
        raise StorageError(f"{table_name(output)} can't be written as a Delta table: {explain(error, output.options)}") from None


def files(output: OutputFolder) -> set[str]:
    """Return the files that make up the table now: paths within the output. Raises UserError."""
    return open_log(output).present


def earlier_files(output: OutputFolder) -> set[str]:
    """Return none: files that only earlier versions have may be removed, and the log stays as it is."""
    return set()


def compact(output: OutputFolder, before: dt.date | None) -> dict[str, Any]:
    """Merge the small files of each partition, or of those before a date, into large ones. The small files stay where they are.

    Returns deltalake's metrics. Raises UserError, StorageError.
    """
    add(output)
    from deltalake.exceptions import DeltaError

    table = open_log(output).table
    assert table is not None
    partitions: Any = None if before is None else [(PARTITION, "<", before.isoformat())]
    try:
        return table.optimize.compact(partition_filters=partitions, target_size=FILE_BYTES)
    except (DeltaError, OSError) as error:
        raise StorageError(f"{table_name(output)} was not compacted, and is unchanged: {explain(error, output.options)}") from None
