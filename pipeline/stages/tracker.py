"""Tracks which worker holds which block, in an actor that takes no CPU.

A worker calls it when it begins a block and when a block changes its stage: a millisecond for hundreds of images. It tells the driver
where a run is stuck, and a worker that a block has lost workers before. The actor's state is lost with its node: blocks then count as
new, and nothing else happens.
"""

import os
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

T = TypeVar("T")
# Workers lost over one block, most of them with its images decoded in a process of their own: the images are not the cause.
MAX_ATTEMPTS = 20


@dataclass(frozen=True)
class BlockTracker:
    """A run's tracker, as workers and the driver hold it. Without an actor (operators called outside Ray) it records nothing."""

    actor: Any = None

    @classmethod
    def start(cls) -> "BlockTracker":
        """Start the actor on the driver's node, which lives as long as the run does."""
        node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        # Without the state API's record of each call: a block has six.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "enable_task_events": False}
        return cls(ray.remote(TrackerActor).options(**options, scheduling_strategy=node).remote())

    def begin(self, block: int) -> int:
        """Record that this worker begins a block. Return how often it was begun before. Raises RuntimeError at `MAX_ATTEMPTS`."""
        if self.actor is None:
            return 0
        before = ray.get(self.actor.begin.remote(block, _worker()))
        if before >= MAX_ATTEMPTS:
            raise RuntimeError(f"block {block} has ended {before} workers, also with its images decoded apart: see the workers' logs")
        return before

    def enter(self, block: int, stage: str) -> None:
        """Record that this worker holds a block, and its stage."""
        if self.actor is not None:
            self.actor.enter.remote(block, stage, _worker())

    def leave(self, block: int) -> None:
        """Record that no worker holds a block any more."""
        if self.actor is not None:
            self.actor.leave.remote(block)

    def agree_on(self, setting: str, value: T) -> T:
        """Return the value of a setting that each worker finds: this one, or that of the worker which was first."""
        return value if self.actor is None else ray.get(self.actor.agree_on.remote(setting, value))

    def settings(self) -> dict[str, Any]:
        """Return the settings that workers have agreed on."""
        return {} if self.actor is None else ray.get(self.actor.settings.remote())

    def stages(self) -> dict[str, int]:
        """Return how many blocks are in each stage. Raises Ray's errors if the actor does not answer within 5 s."""
        return {} if self.actor is None else ray.get(self.actor.stages.remote(), timeout=5)

    def describe(self, timeout: float) -> str:
        """Return on one line the five blocks that have been in one stage for longest, and the CPUs and GPUs that are free.

        If the actor does not answer within `timeout` seconds, return that it does not.
        """
        try:
            oldest = ray.get(self.actor.oldest.remote(5), timeout=timeout)
        except Exception as error:  # called when something is wrong already: it must not add an error of its own
            return f"the block tracker does not answer: {type(error).__name__}"
        lines = [f"block {block} {stage} for {seconds:,.0f} s on {worker}" for block, stage, worker, seconds in oldest]
        free, total = ray.available_resources(), ray.cluster_resources()
        shares = ", ".join(f"{free.get(kind, 0):g} of {total[kind]:g} {kind}s" for kind in ("CPU", "GPU") if kind in total)
        return "; ".join([*(lines or ["no block has begun"]), f"free in the cluster: {shares or 'no CPU at all'}"])


class TrackerActor:
    """The actor: of each block that is held, how often it was begun, and its stage and worker. Nothing of those that were written."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.held: dict[int, tuple[str, str, float]] = {}  # stage, worker, seconds since 1970
        self.agreed: dict[str, Any] = {}

    def begin(self, block: int, worker: str) -> int:
        self.begun[block] += 1
        self.enter(block, "being loaded", worker)
        return self.begun[block] - 1

    def enter(self, block: int, stage: str, worker: str) -> None:
        self.held[block] = (stage, worker, time.time())

    def leave(self, block: int) -> None:
        self.held.pop(block, None)
        self.begun.pop(block, None)

    def agree_on(self, setting: str, value: Any) -> Any:
        return self.agreed.setdefault(setting, value)

    def settings(self) -> dict[str, Any]:
        return dict(self.agreed)

    def stages(self) -> dict[str, int]:
        return dict(Counter(stage for stage, _, _ in self.held.values()))

    def oldest(self, count: int) -> list[tuple[int, str, str, float]]:
        """Return the blocks that have been in one stage for longest: (block, stage, worker, seconds)."""
        oldest = sorted(self.held.items(), key=lambda entry: entry[1][2])[:count]
        return [(block, stage, worker, time.time() - since) for block, (stage, worker, since) in oldest]


def _worker() -> str:
    return f"{socket.gethostname()} (process {os.getpid()})"
