"""Calls of a function as tasks of Ray, on any node."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.errors import StorageError, UserError

R = TypeVar("R")
PATIENCE = 60.0  # seconds, until calls have ended that are told to
RETRIES = 10  # of a task whose worker or node is lost


def plan(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function. Ray shows its tasks under this name."""
    return function(*arguments)


class Tasks(Generic[R]):
    """Calls of a function that are under way, each with a number."""

    def __init__(self, function: Callable[..., R]):
        self._task: Any = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(plan)
        self._function, self._running = ray.put(function), dict[Any, int]()

    @property
    def most(self) -> int:
        """How many calls are to be under way: more than there are CPUs, so that a cluster that grows does."""
        return max(1, 2 * int(ray.cluster_resources().get("CPU", 1)))

    def __enter__(self) -> "Tasks[R]":
        return self

    def __exit__(self, *_: object) -> None:
        """End the calls that are under way, where one has failed: they write what is about to be removed."""
        running = list(self._running)
        for call in running:
            ray.cancel(call)
        ray.wait(running, num_returns=len(running), timeout=PATIENCE) if running else None

    def __len__(self) -> int:
        return len(self._running)

    def submit(self, number: int, *arguments: Any) -> None:
        self._running[self._task.remote(self._function, *arguments)] = number

    def next(self) -> tuple[int, R]:
        """Wait for one of the calls, and return its number and its result. Raises what it raised, UserError and StorageError as such."""
        (done,), _ = ray.wait(list(self._running))
        try:
            return self._running.pop(done), ray.get(done)
        except RayTaskError as error:
            if (cause := foreseen(error)) is not None:
                raise cause from None
            raise


def is_loss(error: BaseException | None) -> bool:
    """Return whether an error is Ray's own, such as of a node that is lost, and not one of the functions that it calls."""
    while isinstance(error, RayTaskError):
        error = error.cause
    return isinstance(error, RayError) or type(error).__module__.startswith("ray.")


def foreseen(error: BaseException | None) -> UserError | StorageError | None:
    """Return the error of ours that a task raised, which Ray wraps, maybe more than once; None where there is none."""
    while error is not None and (isinstance(error, RayTaskError) or not isinstance(error, UserError | StorageError)):
        error = error.cause if isinstance(error, RayTaskError) else error.__cause__
    return error
