"""Records a run, last of all, and removes what it has no more use for.

    OUTPUT/annotations/dt=YYYY-MM-DD/part-<run_id>-<attempt>-00000.parquet
    OUTPUT/runs/<run_id>.json

The record is created once every file is there and verified (`pipeline.stages.merge`), so a reader who starts from the
records never sees half a run. Each driver's files have names of their own and only one record can be created: of two drivers at
once one commits, and what the other wrote is removed, as is what a driver wrote that died.
"""

import json
import logging
import re
from typing import Any

import fsspec

from pipeline.storage.files import create_atomic, listed, read

logger = logging.getLogger(__name__)

PART = re.compile(r"\.?part-(?P<run>.+)-[0-9a-f]{8}-\d{5}\.parquet(\.[0-9a-f]{32})?")


def write_record(fs: fsspec.AbstractFileSystem, root: str, record: dict[str, Any]) -> dict[str, Any]:
    """Commits a run: from here on its files are part of the table. Returns its record: another driver's, if that one was first."""
    path = f"{root}/runs/{record['run_id']}.json"
    if create_atomic(fs, path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()):
        return record
    return json.loads(read(fs, path))


def tidy(fs: fsspec.AbstractFileSystem, root: str, record: dict[str, Any]) -> None:
    """Removes what a committed run has no more use for: its work, and the files of its drivers that did not commit it."""
    folder = f"{root}/annotations/dt={record['date']}"
    try:
        for name in listed(fs, folder, lambda: [info["name"] for info in fs.ls(folder, detail=True)]):
            if part_of(name) == record["run_id"] and name.removeprefix(f"{root}/") not in record["files"]:
                fs.rm_file(name)
        if listed(fs, root, lambda: fs.exists(f"{root}/_work/{record['run_id']}")):
            fs.rm(f"{root}/_work/{record['run_id']}", recursive=True)
    except Exception as error:  # the run is done; what is left harms nobody
        logger.warning("run %s is committed, but what it left could not all be removed (%s): jobs/clean.py does", record["run_id"], error)


def part_of(path: str) -> str | None:
    """The run that a file of the table, or the draft of one, was written by; None if it is no such file."""
    named = PART.fullmatch(path.rpartition("/")[2])
    return named and named["run"]
