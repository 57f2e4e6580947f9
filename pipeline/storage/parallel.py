"""Threads for work that waits for storage: a parallel map in order with a bounded number in flight, and an iterator that is one ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Apply `function` to each item in threads, and yield the results in order.

    At most `threads` items are in progress or finished but not yet taken. Executor.map starts all at once, and holds all
    results however slowly they are taken.
    """
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            if len(pending) == threads:
                yield pending.popleft().result()
            pending.append(pool.submit(function, item))
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield the items, the next of which is made in a thread meanwhile."""
    pool = ThreadPoolExecutor(1)
    end = object()
    try:
        following: Future[Any] = pool.submit(next, items, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, items, end)
            yield item
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
