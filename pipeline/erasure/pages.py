"""The pages that may show images of a run: its own, and those of several nights with its date among them."""

import datetime as dt
import logging
import re
from collections.abc import Iterable
from contextlib import suppress

from pipeline.errors import StorageError, UserError
from pipeline.report import index, page
from pipeline.table.output_folder import RUNS, OutputFolder
from pipeline.table.run_record import RunRecord

logger = logging.getLogger(__name__)
NIGHTS = re.compile(r"nights_(\d{4}-\d\d-\d\d)_(\d{4}-\d\d-\d\d)\.html")


def pages_of(output: OutputFolder, record: RunRecord) -> list[str]:
    """Return the paths, within the output, of the pages beside the records that are about a run."""
    with output.readable():
        names = [name for name in output.names(RUNS) if name.endswith(".html")]
    return [f"{RUNS}/{name}" for name in names if name == f"{record.run_id}.html" or _is_among(record.date, name)]


def remove(output: OutputFolder, pages: Iterable[str]) -> None:
    """Remove pages. Raises the storage's errors."""
    for path in pages:
        with suppress(FileNotFoundError):
            output.remove(path)


def write(output: OutputFolder, pages: Iterable[str], with_index: bool) -> None:
    """Write pages again that were removed, from the records and the rows as they are now, and maybe the page of all nights.

    A failure is only logged: what the pages showed is gone.
    """
    for path in pages:
        name = path.rpartition("/")[2]
        nights = NIGHTS.fullmatch(name)
        try:
            if nights:
                page.write(output, since=dt.date.fromisoformat(nights[1]), until=dt.date.fromisoformat(nights[2]))
            else:
                page.write(output, run_id=name.removesuffix(".html"))
        except (UserError, StorageError) as error:
            logger.warning("%s was removed, and could not be written again: %s; `ugrie report` writes it", path, error)
    if with_index:
        index.rebuild(output)


def _is_among(date: dt.date, name: str) -> bool:
    nights = NIGHTS.fullmatch(name)
    return nights is not None and nights[1] <= date.isoformat() <= nights[2]
