"""Where the run's workers say what they are at, so that the driver can tell a block that kills its workers, and where a run is stuck.

One actor, which takes no CPU. A worker says a word to it when it begins a block, and when a block changes hands: a millisecond
for hundreds of images. What it holds may be lost with its node: then a block is taken for new, and no more than that.
"""

import os
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

MOST_BEGINNINGS = 20  # so many workers died over one block, most of them with its images decoded apart: it isn't the images


class Log:
    """The actor: how often each block was begun, and who has it."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.held: dict[int, tuple[str, str, float]] = {}
        self.settled: dict[str, int] = {}

    def begin(self, block: int, where: str) -> int:
        """Notes that a block is loaded. Returns how often it was before."""
        self.begun[block] += 1
        self.held[block] = ("being loaded", where, time.time())
        return self.begun[block] - 1

    def enter(self, block: int, stage: str, where: str) -> None:
        self.held[block] = (stage, where, time.time())

    def leave(self, block: int) -> None:
        self.held.pop(block, None)

    def settle(self, setting: str, value: int) -> int:
        """Takes a setting's value unless it has one. Returns the one it has: all workers' is that of the first."""
        return self.settled.setdefault(setting, value)

    def settings(self) -> dict[str, int]:
        return dict(self.settled)

    def beginnings(self) -> dict[int, int]:
        return dict(self.begun)

    def stages(self) -> dict[str, int]:
        """How many blocks are in each stage."""
        return dict(Counter(stage for stage, _, _ in self.held.values()))

    def longest(self, count: int) -> list[tuple[int, str, str, float]]:
        """The blocks that have been in one stage for longest: (block, stage, where, seconds)."""
        oldest = sorted(self.held.items(), key=lambda entry: entry[1][2])[:count]
        return [(block, stage, where, time.time() - since) for block, (stage, where, since) in oldest]


@dataclass(frozen=True)
class Board:
    """A run's board, as workers and the driver hold it. Without an actor (operators called outside Ray) it says nothing."""

    log: Any = None

    @classmethod
    def put_up(cls) -> "Board":
        """Starts the actor on the driver's node, which lives as long as the run does."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        return cls(ray.remote(Log).options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here).remote())

    def begin(self, block: int) -> int:
        """How often the block was begun before. Raises RuntimeError if it has been far too often."""
        if self.log is None:
            return 0
        before = ray.get(self.log.begin.remote(block, _where()))
        if before >= MOST_BEGINNINGS:
            raise RuntimeError(f"block {block} has ended {before} workers, also with its images decoded apart: see the workers' logs")
        return before

    def enter(self, block: int, stage: str) -> None:
        if self.log is not None:
            self.log.enter.remote(block, stage, _where())

    def leave(self, block: int) -> None:
        if self.log is not None:
            self.log.leave.remote(block)

    def settle(self, setting: str, value: int) -> int:
        """The value of a setting that workers find by themselves: this one, or another worker's that was first."""
        return value if self.log is None else ray.get(self.log.settle.remote(setting, value))

    def settings(self) -> dict[str, int]:
        """The settings that workers have found."""
        return {} if self.log is None else ray.get(self.log.settings.remote())

    def stages(self) -> dict[str, int]:
        """How many blocks are in each stage. Raises Ray's errors if the board does not answer."""
        return {} if self.log is None else ray.get(self.log.stages.remote(), timeout=5)

    def stuck(self) -> str:
        """Where the run is, in a line for each of the blocks that have not moved for longest; and what the cluster has left."""
        try:
            held = ray.get(self.log.longest.remote(5), timeout=30)
        except Exception as error:  # it is asked because something is wrong; it must not add to it
            return f"the board that says where it is does not answer: {type(error).__name__}"
        lines = [f"block {block} {stage} for {seconds:,.0f} s on {where}" for block, stage, where, seconds in held]
        free, whole = ray.available_resources(), ray.cluster_resources()
        shares = ", ".join(f"{free.get(kind, 0):g} of {whole[kind]:g} {kind}s" for kind in ("CPU", "GPU") if kind in whole)
        return "; ".join([*(lines or ["no block has begun"]), f"free in the cluster: {shares or 'no CPU at all'}"])


def _where() -> str:
    return f"{socket.gethostname()} (process {os.getpid()})"
