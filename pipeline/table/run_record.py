"""What an output holds already: the records of its committed runs, and the images that they annotated."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.storage.files import listed, open_file, read
from pipeline.storage.parallel import mapped
from pipeline.table.schema import SCHEMA_VERSION
from ugrie.text import one_line

THREADS = 16  # which wait for storage, most of the time
PARTS = {"run_id": str, "model": str, "date": str, "finished_at": str, "schemes": dict, "counts": dict, "files": list, "config": dict}


def past_runs(fs: fsspec.AbstractFileSystem, root: str, model: str | None = None) -> list[dict[str, Any]]:
    """The records of the output's committed runs, or of those of a model ("name@digest"), the newest first: by date, then by when they
    finished.

    Raises UserError where a file in OUTPUT/runs is no record, or one that another version of UGRIE wrote, of whatever model.
    """
    folder = f"{root}/runs"
    with _readable():
        paths = listed(fs, folder, lambda: fs.ls(folder, detail=False) if fs.exists(folder) else [])
    records = mapped(lambda path: _record(fs, path), (path for path in paths if path.endswith(".json")), THREADS)
    found = [record for record in records if model in (None, record["model"])]
    return sorted(found, key=lambda record: (record["date"], record["finished_at"]), reverse=True)


def image_ids(
    fs: fsspec.AbstractFileSystem, root: str, files: Sequence[str], but: Sequence[str] = (), runs: Sequence[str] | None = None
) -> np.ndarray:
    """The ids of the images in these files of the table, which are paths within the output: int64, sorted, each once.

    Rows whose status is one of `but` are left out, and where `runs` are given, those of other runs. Only the columns that this takes
    are read. However often the files repeat an image, no more memory is taken than for a few times the result.
    """
    return union(mapped(lambda file: _ids(fs, f"{root}/{file}", but, runs), files, THREADS))


def union(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """All values of int64 arrays, sorted, each once. What came lately is merged in once there is more of it than of the rest."""
    known, late, waiting = np.empty(0, np.int64), [], 0
    for array in arrays:
        late.append(array)
        waiting += len(array)
        if waiting > max(len(known), 2**20):
            known, late, waiting = _merged([known, *late]), [], 0
    return _merged([known, *late])


def _merged(arrays: list[np.ndarray]) -> np.ndarray:
    values = np.concatenate(arrays)
    values.sort()  # np.unique takes a hundred times as long
    return values[np.append(True, values[1:] != values[:-1])] if len(values) else values


def _record(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any]:
    with _readable():
        data = read(fs, path)
    try:
        record = json.loads(data)
    except ValueError as error:
        raise UserError(f"{path} is no run's record ({error}): mend it, or move it elsewhere") from None
    version = record.get("schema_version") if isinstance(record, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{path} has schema_version {version}, and this UGRIE reads {SCHEMA_VERSION}: take a newer one, or another output")
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} is no run's record (its schema_version is {version}): mend it, or move it elsewhere")
    for name, kind in PARTS.items():
        if not isinstance(record.get(name), kind):
            raise UserError(f"{path} is no run's record ('{name}' is not there, or not as it should be): mend it, or move it elsewhere")
    return record


def _ids(fs: fsspec.AbstractFileSystem, path: str, but: Sequence[str], runs: Sequence[str] | None) -> np.ndarray:
    columns = ["image_id", *(["status"] if but else []), *(["run_id"] if runs is not None else [])]
    try:
        with open_file(fs, path) as file:
            rows = pq.ParquetFile(file, pre_buffer=True).read(columns=columns, use_threads=False)
        if but:
            rows = rows.filter(pc.invert(pc.is_in(rows["status"], pa.array(but, pa.string()))))
        if runs is not None:
            rows = rows.filter(pc.is_in(rows["run_id"], pa.array(runs, pa.string())))
        return rows["image_id"].to_numpy()
    except (OSError, KeyError, pa.ArrowException) as error:
        problem = one_line(str(error)) or type(error).__name__
        raise UserError(f"{path} can't be read ({problem}), and a run's record lists it: restore it, or remove the record") from None


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # storage clients raise kinds of their own
        raise UserError(f"the output can't be read: {error or type(error).__name__}; check the path and the credentials") from None
