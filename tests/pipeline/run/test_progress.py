"""Progress of a run."""

import logging

import pytest

from pipeline.run import progress
from pipeline.run.progress import Progress
from pipeline.text import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (7.4, "7 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (100 * 3600, "100 h 00 min"),
    ],
)
def test_a_duration_reads_well(seconds, words):
    assert duration(seconds) == words


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_the_rate_counts_from_the_first_block_so_that_starting_does_not(clock):
    run = Progress(100)
    clock.now += 60
    run.add(10, 10)
    assert (run.rate, run.first_block_seconds) == (None, 60)
    clock.now += 10
    run.add(20, 20)
    assert (run.rate, run.first_block_seconds) == (2, 60)
    assert run.line() == "30 of 100 images (30%), 2.0 images/s, 35 s left"


def test_failed_images_are_counted(clock):
    run = Progress(100)
    run.add(10, 7)
    assert run.line() == "10 of 100 images (10%), 3 of them failed"


def test_a_run_that_goes_on_begins_where_it_stopped(clock):
    run = Progress(100, done=90)
    run.add(5, 5)
    clock.now += 5
    run.add(5, 5)
    assert run.line() == "100 of 100 images (100%), 1.0 images/s, 0 s left"


def test_a_log_has_a_line_every_few_seconds_and_one_at_the_end(clock, caplog):
    caplog.set_level(logging.INFO, logger="pipeline.run.progress")
    with Progress(50) as run:
        for _ in range(50):
            clock.now += 0.5
            run.add(1, 1)
    counted = [int(record.message.split()[0]) for record in caplog.records]
    assert counted == [10, 20, 30, 40, 50]


def test_before_the_first_block_there_is_nothing_to_tell(clock):
    assert (Progress(10).rate, Progress(10).first_block_seconds) == (None, None)
    assert Progress(0).line() == "0 of 0 images (0%)"
