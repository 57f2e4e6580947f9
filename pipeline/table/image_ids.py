"""The IDs of the images, or of the rows, in files of a table, as sorted arrays."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import TRANSIENT, UserError
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import public_message
from pipeline.table.commit import part_of
from pipeline.table.output_folder import OutputFolder
from pipeline.table.schema import ROW_ID

THREADS = 16  # which wait for storage, most of the time
NO_IDS = np.empty(0, np.int64)


class PastImages(NamedTuple):
    """IDs of images in earlier runs: int64, sorted, unique. Those that `failed` may be tried again, unless they are `annotated`, too."""

    annotated: np.ndarray
    failed: np.ndarray


@dataclass(frozen=True)
class PastFiles:
    """Files of the table (paths within the output) whose images, or rows where `key` is `row_id`, are known.

    An image `failed` if a row of one of the runs `retry` has a status that may pass (TRANSIENT); every other row makes its image
    `annotated`. Where `runs` are given, rows of other runs are left out. Only the columns that this takes are read.
    """

    files: Sequence[str] = ()
    retry: Collection[str] = ()
    runs: Collection[str] | None = None
    key: str = "image_id"

    def read_all(self, output: OutputFolder) -> PastImages:
        """Return the images in all files. However often the files repeat an image, memory stays within a few times the result."""
        failed: list[np.ndarray] = []

        def annotated() -> Iterator[np.ndarray]:
            for found in parallel_map(lambda file: self.read(output, file), self.files, THREADS):
                failed.append(found.failed)
                yield found.annotated

        return PastImages(union(annotated()), union(failed))

    def read(self, output: OutputFolder, path: str) -> PastImages:
        """Return the images in a file, in the order of its rows, some maybe more than once. Raises UserError."""
        run = part_of(path)  # None for a compacted file, which holds rows of several runs
        by_run = run is None and (self.runs is not None or bool(self.retry))
        by_status = run in self.retry if run is not None else bool(self.retry)
        columns = [self.key, *(["status"] if by_status else []), *(["run_id"] if by_run else [])]
        try:
            with output.open(path) as file:
                parquet = pq.ParquetFile(file, pre_buffer=True)
                if run is None and self.key == ROW_ID and self.key not in parquet.schema_arrow.names:  # all its runs kept no columns
                    return PastImages(NO_IDS, NO_IDS)
                rows = parquet.read(columns=columns, use_threads=False)
            if by_run and self.runs is not None:
                rows = rows.filter(pc.is_in(rows["run_id"], pa.array(self.runs, pa.string())))
            ids = rows[self.key].to_numpy()
            if not by_status:
                return PastImages(ids, NO_IDS)
            failed = pc.is_in(rows["status"], pa.array(TRANSIENT))
            if by_run:
                failed = pc.and_(failed, pc.is_in(rows["run_id"], pa.array(self.retry, pa.string())))
            mask = failed.to_numpy()
            return PastImages(ids[~mask], ids[mask])
        except (OSError, KeyError, pa.ArrowException) as error:
            raise unreadable(output.absolute(path), error) from None


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


def unreadable(path: str, error: Exception) -> UserError:
    """Return the error for a file that a record lists and that can't be read."""
    problem = public_message(error, {})
    return UserError(f"{path} can't be read ({problem}), and a run record lists it: restore it, or remove the record")
