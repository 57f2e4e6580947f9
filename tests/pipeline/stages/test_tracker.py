"""What workers say they are at."""

import pytest

from pipeline.stages import tracker
from pipeline.stages.tracker import Board, Log


def test_a_block_that_is_begun_again_is_known():
    log = Log()
    assert [log.begin(block, "a") for block in (1, 2, 1, 1)] == [0, 0, 1, 2]


def test_the_blocks_that_have_not_moved_for_longest_are_named_with_their_place(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(tracker.time, "time", lambda: now[0])
    log = Log()
    for block, where in ((1, "a"), (2, "b"), (3, "c")):
        log.begin(block, where)
        now[0] += 10
    log.enter(1, "being annotated", "d")
    log.leave(3)
    now[0] += 5
    assert log.longest(9) == [(2, "being loaded", "b", 25.0), (1, "being annotated", "d", 5.0)]
    assert log.stages() == {"being annotated": 1, "being loaded": 1}
    assert log.longest(1) == [(2, "being loaded", "b", 25.0)]


def test_a_setting_that_workers_find_is_the_first_ones():
    log = Log()
    assert [log.settle("batch_size", value) for value in (4, 8)] == [4, 4]
    assert log.settings() == {"batch_size": 4}


def test_without_ray_it_says_nothing():
    assert Board().settle("batch_size", 8) == 8
    assert Board().settings() == Board().stages() == {}
    assert Board().begin(3) == 0
    Board().enter(3, "being written")
    Board().leave(3)


def test_workers_and_driver_share_one_through_ray(local_ray):
    import ray

    shared = Board.put_up()
    begin = ray.remote(num_cpus=0)(lambda: (shared.begin(7), shared.enter(7, "being written")))
    assert [ray.get(begin.remote())[0] for _ in range(2)] == [0, 1]
    shared.begin(8)
    shared.leave(8)
    said = shared.stuck()
    assert "block 7 being written for 0 s on" in said
    assert "block 8" not in said
    assert "CPUs" in said
    assert [shared.settle("batch_size", value) for value in (4, 8)] == [4, 4]
    assert shared.settings() == {"batch_size": 4}


def test_a_block_that_ends_every_worker_ends_the_run(local_ray):
    shared = Board.put_up()
    assert [shared.begin(7) for _ in range(tracker.MOST_BEGINNINGS)] == list(range(tracker.MOST_BEGINNINGS))
    with pytest.raises(RuntimeError, match="block 7 has ended 20 workers"):
        shared.begin(7)
