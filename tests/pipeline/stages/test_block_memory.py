"""Of blocks that are done, and of most that are to come, the driver keeps nothing. Ray is as this code assumes it to be."""

from copy import deepcopy
from typing import ClassVar

import numpy as np
import pytest
from ray.data import DataContext

from pipeline.stages import block_memory, block_numbers
from pipeline.stages.block_memory import BoundBlockMemory, bound_block_memory


class Counted(BoundBlockMemory):
    """Notes how many statistics Ray Data has kept before they are forgotten and after, and how many numbers wait."""

    before: ClassVar[list[int]] = []
    after: ClassVar[list[int]] = []
    waiting: ClassVar[list[int]] = []

    def on_execution_step(self, executor):
        def count():
            return sum(len(blocks) for operator in executor._topology for blocks in operator.get_stats().values())

        Counted.before.append(count())
        super().on_execution_step(executor)
        Counted.after.append(count())
        source = [state for operator, state in executor._topology.items() if operator.name.startswith(block_numbers.SOURCE)]
        Counted.waiting += [len(state.output_queue) for state in source]


@pytest.fixture
def context(local_ray):
    context = deepcopy(DataContext.get_current())
    context.custom_execution_callback_classes = [Counted]
    context.target_max_block_size = None
    with DataContext.current(context):
        yield context


def test_what_ray_data_keeps_of_blocks_that_are_done_and_to_come_is_bounded(context, monkeypatch):
    monkeypatch.setattr(block_numbers, "AT_ONCE", 10)
    monkeypatch.setattr(block_memory, "AHEAD", 5)
    numbers = block_numbers.block_numbers(np.arange(200)).map_batches(lambda batch: batch, num_cpus=2, batch_size=None)
    assert sorted(row["block"] for row in numbers.iter_rows()) == list(range(200))
    assert sum(Counted.before) == 400  # of two operators, none seen twice
    assert set(Counted.after) == {0}
    assert 5 <= max(Counted.waiting) < 15


def test_a_context_is_bounded_once_however_often_a_run_asks_for_it():
    context = DataContext()
    for _ in range(2):
        bound_block_memory(context)
    assert context.custom_execution_callback_classes.count(BoundBlockMemory) == 1
