"""Work that waits for storage, done by several threads at once, in order and without running far ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def mapped(function: Callable[[T], R], things: Iterable[T], threads: int) -> Iterator[R]:
    """What `function` says of each thing, in order. No more than `threads` are begun or waiting to be taken at any time.

    Executor.map begins them all at once, and holds what they return however slowly it is taken.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for thing in things:
            if len(waiting) == threads:
                yield waiting.popleft().result()
            waiting.append(pool.submit(function, thing))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
