"""Work in portions that a GPU's memory holds."""

import pytest
import torch

from ugrie import memory
from ugrie.memory import Portions, is_out_of_memory


def wrapped(inner):
    error = RuntimeError("the compiler failed")
    error.inner_exception = inner
    return error


FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (FULL, True),
        (wrapped(FULL), True),
        (RuntimeError("No valid triton configs. OutOfMemoryError: out of resource"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (wrapped(ValueError("no")), False),
    ],
)
def test_a_full_memory_is_known_by_whatever_error(error, full):
    assert is_out_of_memory(error) == full


def test_an_error_says_so_by_its_cause():
    error = ValueError("no graph")
    error.__cause__ = FULL
    assert is_out_of_memory(error)


@pytest.mark.parametrize("size", [0, 4])
def test_rows_are_done_in_portions_that_fit_each_once_and_in_order(monkeypatch, size):
    monkeypatch.setattr(memory.cuda, "empty_cache", lambda: None)
    portions, sizes = Portions(size, "rows"), []

    def work(rows, size):
        sizes.append(size)
        if len(rows) > 3:
            raise FULL
        return rows

    found = portions(work, list(range(10)))
    assert [row for rows in found for row in rows] == list(range(10))
    assert portions.was_full
    assert sizes == ([10, 5, 2, 2, 2, 2, 2] if size == 0 else [4, 2, 2, 2, 2, 2])


def test_no_rows_are_worked_on_once():
    assert Portions(0, "rows")(lambda rows, size: (rows, size), []) == [([], 1)]


def test_a_row_that_does_not_fit_and_any_other_error_are_raised():
    with pytest.raises(torch.OutOfMemoryError):
        Portions(1, "rows")(lambda rows, size: (_ for _ in ()).throw(FULL), [1, 2])
    with pytest.raises(ZeroDivisionError):
        Portions(8, "rows")(lambda rows, size: 1 / 0, [1, 2])
