"""Works through rows on a GPU whose memory may be full: half as many at once, and the same rows again."""

import logging
from collections.abc import Callable
from typing import Protocol, Self, TypeVar

import torch
from torch import cuda

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Rows(Protocol):
    """A tensor or an array."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice) -> Self: ...


R = TypeVar("R", bound=Rows)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a GPU's memory is full. PyTorch's compiler, Triton and cuBLAS have errors of their own for it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, torch.OutOfMemoryError) or "out of memory" in str(seen) or "OutOfMemoryError" in str(seen):
            return True
        if "CUBLAS_STATUS_ALLOC_FAILED" in str(seen) or "CUBLAS_STATUS_NOT_INITIALIZED" in str(seen):  # it had no memory to begin with
            return True
        seen = getattr(seen, "inner_exception", None) or seen.__cause__
    return False


class Portions:
    """The number of rows that are worked on at once, 0 for all. It is halved for good each time that the GPU's memory is full."""

    def __init__(self, size: int, what: str):
        self.size, self.what = size, what
        self.was_full = False

    def __call__(self, work: Callable[[R, int], T], rows: R) -> list[T]:
        """Call `work(some rows, size)`, with at most `size` rows, until all are done; once if there are none. Return its results.

        Raises what `work` raises, and an error of a full memory if a single row does not fit.
        """
        found: list[T] = []
        done = 0
        while done < len(rows) or not found:
            size = self.size or max(1, len(rows))
            try:
                found.append(work(rows[done : done + size], size))
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            else:
                done += size
                continue
            # Here, where the error no longer holds what could not be finished.
            self.size, self.was_full = max(1, size // 2), True
            cuda.empty_cache()
            logger.warning("the GPU's memory is full: from now on %d %s at once", self.size, self.what)
        return found
