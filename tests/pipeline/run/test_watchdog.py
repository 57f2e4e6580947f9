"""A stalled run is stopped, with a message that says where it is stuck."""

import threading
import time

import pytest

from pipeline.run.watchdog import StalledError, watched


def test_items_come_in_order_and_as_they_are():
    assert list(watched(iter(range(50)), 10, lambda seconds: "")) == list(range(50))


def test_an_error_is_raised_where_the_items_are_wanted():
    def items():
        yield 1
        raise ZeroDivisionError("here")

    came = watched(items(), 10, lambda seconds: "")
    assert next(came) == 1
    with pytest.raises(ZeroDivisionError, match="here"):
        next(came)


def test_a_wait_that_grows_long_is_warned_of_and_then_given_up_with_its_place(caplog):
    release = threading.Event()

    def items():
        yield 1
        release.wait(20)

    came = watched(items(), 0.2, lambda seconds: "block 3 has been written for ever")
    assert next(came) == 1
    with pytest.raises(StalledError, match=r"no block was written for \d+ s: block 3 has been written for ever \(stall_timeout = 0.2 s\)"):
        next(came)
    assert len(caplog.messages) == 3
    release.set()


@pytest.mark.slow
def test_a_slow_run_is_not_a_stuck_one():
    assert len(list(watched((time.sleep(0.03) for _ in range(40)), 1.0, lambda seconds: ""))) == 40


def test_asking_where_the_run_is_delays_its_end_by_no_more_than_the_last_answer():
    release, given = threading.Event(), []

    def where(seconds):
        given.append(seconds)
        time.sleep(min(seconds, 0.05))  # as slow as it may be
        return "nobody answers"

    with pytest.raises(StalledError, match=r"no block was written for \d+ s: nobody answers \(stall_timeout = 0.2 s\)"):
        list(watched((release.wait(20) for _ in range(1)), 0.2, where))
    assert given == [0.05, 0.05, 0.05, 30]
    release.set()
