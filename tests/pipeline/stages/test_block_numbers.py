"""The graph's source has every number once, in order, whether the driver knows them all or tasks hand them out."""

import numpy as np
import pytest

from pipeline.stages import block_numbers
from pipeline.stages.block_numbers import BlockNumbers


@pytest.mark.parametrize("count", [11, 20, 21, 99])
def test_the_parts_are_all_numbers_in_order_divided_as_ray_data_divides_them(monkeypatch, count):
    """Ray Data divides what each task returns by a factor: the number of blocks over the number of tasks, rounded up."""
    monkeypatch.setattr(block_numbers, "AT_ONCE", 10)
    numbers = np.arange(count) * 3
    tasks = BlockNumbers(numbers).get_read_tasks(count)
    parts = [table["block"].to_pylist() for task in tasks for table in task()]
    assert [number for part in parts for number in part] == numbers.tolist()
    assert [len(part) for part in parts] == [task.metadata.num_rows for task in tasks]
    assert max(map(len, parts)) == -(-count // len(parts)) <= 10


@pytest.mark.parametrize("count", [8, 37])
def test_ray_data_makes_a_block_of_each_number_in_order(local_ray, monkeypatch, count):
    monkeypatch.setattr(block_numbers, "AT_ONCE", 10)
    numbers = np.arange(count) * 3
    blocks = block_numbers.block_numbers(numbers).iter_batches(batch_size=None, batch_format="pyarrow")
    assert [block["block"].to_pylist() for block in blocks] == [[number] for number in numbers.tolist()]
