"""The IDs of the images in files of a table, as one sorted array."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import public_message
from pipeline.table.output_folder import OutputFolder

THREADS = 16  # which wait for storage, most of the time


def image_ids(output: OutputFolder, files: Sequence[str], but: Sequence[str] = (), runs: Sequence[str] | None = None) -> np.ndarray:
    """Return the IDs of the images in files of the table (paths within the output): int64, sorted, unique.

    Rows whose status is one of `but` are left out, and where `runs` are given, rows of other runs. Only the columns that this
    takes are read. However often the files repeat an image, memory stays within a few times the result.
    """
    return union(parallel_map(lambda file: _ids(output, file, but, runs), files, THREADS))


def union(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Return the unique values of int64 arrays, sorted. New values are merged in batches, so that memory stays bounded."""
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


def _ids(output: OutputFolder, path: str, but: Sequence[str], runs: Sequence[str] | None) -> np.ndarray:
    columns = ["image_id", *(["status"] if but else []), *(["run_id"] if runs is not None else [])]
    try:
        with output.open(path) as file:
            rows = pq.ParquetFile(file, pre_buffer=True).read(columns=columns, use_threads=False)
        if but:
            rows = rows.filter(pc.invert(pc.is_in(rows["status"], pa.array(but, pa.string()))))
        if runs is not None:
            rows = rows.filter(pc.is_in(rows["run_id"], pa.array(runs, pa.string())))
        return rows["image_id"].to_numpy()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise unreadable(output.absolute(path), error) from None


def unreadable(path: str, error: Exception) -> UserError:
    """Return the error for a file that a record lists and that can't be read."""
    problem = public_message(error, {})
    return UserError(f"{path} can't be read ({problem}), and a run record lists it: restore it, or remove the record")
