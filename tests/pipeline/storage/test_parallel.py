"""Parallel map with results in order."""

import threading
import time
from itertools import count, islice

import pytest

from pipeline.storage.parallel import one_ahead, parallel_map


def test_results_come_in_order_however_long_each_takes():
    delays = [0.02, 0, 0.01, 0, 0, 0.01, 0]
    assert list(parallel_map(lambda i: time.sleep(delays[i]) or i, range(7), 3)) == list(range(7))
    assert list(parallel_map(str, [], 3)) == []


def test_as_many_are_at_work_at_once_as_there_are_threads():
    together = threading.Barrier(4)
    assert list(parallel_map(lambda i: together.wait(timeout=10) >= 0, range(8), 4)) == [True] * 8


def test_no_more_is_begun_than_threads_ahead_of_what_is_taken():
    begun = []
    results = parallel_map(lambda i: begun.append(i) or i, count(), 3)
    assert list(islice(results, 5)) == [0, 1, 2, 3, 4]
    assert max(begun) < 5 + 3
    results.close()


def test_an_error_comes_where_its_result_would_have_and_ends_it():
    results = parallel_map(lambda i: 1 // (2 - i), range(9), 4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_the_next_item_is_made_while_one_is_used():
    made = [threading.Event() for _ in range(4)]

    def items():
        for i, event in enumerate(made):
            event.set()
            yield i

    found = []
    for item in one_ahead(items()):
        found.append(item)
        assert item == 3 or made[item + 1].wait(20)
        assert not any(event.is_set() for event in made[item + 2 :])
    assert found == [0, 1, 2, 3]


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise OSError("gone")

    ahead = one_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="gone"):
        next(ahead)
