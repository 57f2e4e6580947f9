"""Bounds what Ray Data keeps of blocks in the driver: nothing of those that are done, and the numbers of few that are to come."""

from typing import TYPE_CHECKING, Any

from pipeline.stages.block_numbers import AT_ONCE, SOURCE

if TYPE_CHECKING:
    from ray.data import DataContext

AHEAD = AT_ONCE // 2  # numbers that wait for a worker when others are handed out, which takes a second or two


class BoundBlockMemory:
    """A callback of Ray Data's executor, called by the methods of its `ExecutionCallback`.

    It empties the statistics of each operator's blocks, some kilobytes a block, which nothing else reads. Another version of Ray may keep
    them elsewhere, or have other policies: the driver's memory then grows with the blocks, and nothing else happens.
    """

    def before_execution_starts(self, executor: Any) -> None:
        policies = getattr(executor, "_backpressure_policies", None)
        if isinstance(policies, list):
            policies.append(FewNumbersWait(executor._topology))

    def on_execution_step(self, executor: Any) -> None:
        for operator in getattr(executor, "_topology", None) or ():
            for blocks in operator.get_stats().values():
                if isinstance(blocks, list):
                    blocks.clear()

    def after_execution_succeeds(self, executor: Any) -> None: ...

    def after_execution_fails(self, executor: Any, error: Exception) -> None: ...


class FewNumbersWait:
    """A policy of backpressure, with the methods of Ray Data's: numbers are handed out once few wait that were handed out before."""

    name = "FewNumbersWait"

    def __init__(self, topology: Any):
        self.topology = topology

    def can_add_input(self, operator: Any) -> bool:
        return not operator.name.startswith(SOURCE) or len(self.topology[operator].output_queue) < AHEAD

    def max_task_output_bytes_to_read(self, operator: Any) -> None:
        return None


def bound_block_memory(context: "DataContext") -> None:
    """Let the datasets of this context be bounded."""
    classes: list[Any] = context.custom_execution_callback_classes
    if BoundBlockMemory not in classes:
        classes.append(BoundBlockMemory)
