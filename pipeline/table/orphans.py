"""What an output holds beside its committed runs, named before a run begins: files that others may read, and runs that were not finished.

Looked at are the run's own partition and the names of what is at work. All partitions are what `jobs/clean.py` looks through.
"""

import json
import logging
from collections.abc import Callable, Iterable

import fsspec

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.storage.files import listed, read
from pipeline.table import delta
from pipeline.table.commit import part_of

logger = logging.getLogger(__name__)
MOST_NAMED = 5


def warn(fs: fsspec.AbstractFileSystem, root: str, config: AnnotateConfig) -> None:
    """Logs a warning for each kind of thing. Raises UserError where the output can't be read."""
    try:
        records = {name.removesuffix(".json") for name in _names(fs, f"{root}/runs") if name.endswith(".json")}
        unfinished = {name for name in _names(fs, f"{root}/_work") if name not in records} - {config.run_id}
        folder = f"annotations/dt={config.date.isoformat()}"
        found = [name for name in _names(fs, f"{root}/{folder}") if name.endswith(".parquet") and not name.startswith((".", "_"))]
        runs = {run_id for run_id in map(part_of, found) if run_id is not None}
        kept = {file for run_id in runs & records for file in json.loads(read(fs, f"{root}/runs/{run_id}.json"))["files"]}
        beside = [] if not found or delta.is_table(fs, root) else found  # a table's readers see what its log lists
    except UserError:
        raise
    except Exception as error:  # storage clients raise kinds of their own, and a record may be broken
        raise UserError(f"the output can't be read: {error or type(error).__name__}; check the path and the credentials") from None
    _say(
        unfinished,
        "a run has not been committed: %s. It is at work, or died: what it wrote counts for nothing, and its images are annotated again, "
        "until the same command with its --run-id has finished it. What dead runs left is removed by jobs/clean.py",
    )
    of_runs = "a file that no run's record lists: %s. Whoever reads the table by a glob reads its rows too; jobs/clean.py removes it"
    _say((f"{folder}/{name}" for name in beside if part_of(name) and f"{folder}/{name}" not in kept), of_runs)
    foreign = "a file that no run wrote: %s. Whoever reads the table by a glob reads it too: move it out of annotations/"
    _say((f"{folder}/{name}" for name in beside if part_of(name) is None), foreign)


def _names(fs: fsspec.AbstractFileSystem, folder: str) -> list[str]:
    """What lies in a folder, by name; nothing where there is none."""
    look: Callable[[], list[str]] = lambda: fs.ls(folder, detail=False) if fs.exists(folder) else []  # noqa: E731
    return [path.rstrip("/").rpartition("/")[2] for path in listed(fs, folder, look)]


def _say(things: Iterable[str], message: str) -> None:
    names = sorted(things)
    if names:
        more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
        logger.warning(message, ", ".join(names[:MOST_NAMED]) + more)
