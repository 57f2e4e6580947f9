"""The graph's source: the numbers of the blocks that are left, a Ray Data block each.

The driver keeps some kilobytes for each object that it knows, also for a number of eight bytes. So tasks hand out the numbers of a long
run, some hundreds at once, and `pipeline.stages.block_memory` lets few of them wait. Of a short run the driver knows all from the start,
which is sooner than a task can be.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from ray.data import Dataset, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

AT_ONCE = 256  # numbers that a task hands out
CPUS = 0.01  # of such a task: a cluster of one CPU has no more beside the actor, and with none it may run on a head that takes no work
SOURCE = "ReadBlockNumbers"  # how Ray Data's name of the operator begins


@dataclass
class BlockNumbers(Datasource):
    """The numbers, which a task each hands out in parts of `AT_ONCE`."""

    numbers: np.ndarray

    def __post_init__(self) -> None:
        super().__init__()

    def estimate_inmemory_data_size(self) -> int:
        return self.numbers.nbytes

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        """Return a task for each part. The parts have equal sizes, or nearly so: Ray Data divides what each returns into as many blocks."""
        parts = np.array_split(self.numbers, -(-len(self.numbers) // AT_ONCE))
        return [
            ReadTask(_returning(part), BlockMetadata(num_rows=len(part), size_bytes=part.nbytes, input_files=None, exec_stats=None))
            for part in parts
        ]


def _returning(numbers: np.ndarray) -> Callable[[], Iterable[pa.Table]]:
    return lambda: [pa.table({"block": numbers})]


def are_handed_out(numbers: np.ndarray) -> bool:
    """Return whether tasks hand out these numbers, rather than that the driver knows all of them from the start."""
    return len(numbers) > AT_ONCE


def block_numbers(numbers: np.ndarray) -> Dataset:
    """Return a dataset of one block for each number, in order."""
    if are_handed_out(numbers):
        return ray.data.read_datasource(BlockNumbers(numbers), num_cpus=CPUS, concurrency=1, override_num_blocks=len(numbers))
    return ray.data.from_items([{"block": number} for number in numbers.tolist()], override_num_blocks=len(numbers))
