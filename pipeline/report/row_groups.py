"""Draws random row groups from the Parquet files of committed runs, the same ones each time."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.parallel import parallel_map
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord
from pipeline.table.schema import SchemeMetadata, file_schemes

MAX_ROWS = 200_000  # drawn in all, unless the first row group is larger
THREADS = 16  # mostly waiting for storage


@dataclass(frozen=True)
class RunFile:
    """A file of a run: `run` is the run's index in the list of runs, `first_row` the number of the file's first row within the run."""

    run: int
    path: str
    first_row: int
    metadata: pq.FileMetaData

    @property
    def rows(self) -> int:
        return self.metadata.num_rows

    @property
    def schemes(self) -> dict[str, SchemeMetadata]:
        return file_schemes(self.metadata.metadata)

    @cached_property
    def group_rows(self) -> list[int]:
        """The number of rows of each row group."""
        return [self.metadata.row_group(i).num_rows for i in range(self.metadata.num_row_groups)]

    def read(self, output: OutputFolder, groups: Sequence[int], columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Read row groups one after another. Yield each with the number of its first row within the run."""
        with output.open(self.path) as file:
            parquet = pq.ParquetFile(file, metadata=self.metadata, pre_buffer=True)
            for group in groups:
                yield self.first_row + sum(self.group_rows[:group]), parquet.read_row_group(group, columns, use_threads=False)


def run_files(output: OutputFolder, records: Sequence[RunRecord]) -> list[RunFile]:
    """Return the files of runs in the order of the records, with their metadata. Raises OSError and Arrow's errors."""

    def metadata(path: str) -> pq.FileMetaData:
        with output.open(path) as file:
            return pq.ParquetFile(file).metadata

    paths = [(run, path) for run, record in enumerate(records) for path in record.files]
    files: list[RunFile] = []
    for (run, path), found in zip(paths, parallel_map(metadata, (path for _, path in paths), THREADS), strict=True):
        previous = files[-1] if files and files[-1].run == run else None
        files.append(RunFile(run, path, previous.first_row + previous.rows if previous else 0, found))
    return files


def draw_groups(files: Sequence[RunFile], seed: Sequence[str]) -> list[tuple[RunFile, list[int]]]:
    """Draw row groups of MAX_ROWS rows at most, or one row group. Return the files with their groups, both in order."""
    groups = [(index, group) for index, file in enumerate(files) for group in range(len(file.group_rows))]
    number = int.from_bytes(hashlib.sha256("\n".join(seed).encode()).digest())
    order = np.random.default_rng(number).permutation(len(groups))
    drawn: list[tuple[int, int]] = []
    rows = 0
    for index, group in (groups[i] for i in order):
        rows += files[index].group_rows[group]
        if drawn and rows > MAX_ROWS:
            break
        drawn.append((index, group))
    return [(files[index], [group for _, group in pairs]) for index, pairs in groupby(sorted(drawn), key=lambda pair: pair[0])]
