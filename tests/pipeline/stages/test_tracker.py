"""The tracker knows which worker holds which block."""

import pytest

from pipeline.stages import tracker
from pipeline.stages.tracker import BlockTracker, TrackerActor


def test_a_block_that_is_begun_again_is_known():
    actor = TrackerActor()
    assert [actor.begin(block, "a") for block in (1, 2, 1, 1)] == [0, 0, 1, 2]


def test_of_a_block_that_was_written_nothing_is_kept():
    actor = TrackerActor()
    for block in (7, 8):
        actor.begin(block, "a")
    actor.enter(7, "being written", "b")
    actor.leave(7)
    assert (list(actor.held), dict(actor.begun)) == ([8], {8: 1})
    assert [actor.begin(block, "a") for block in (7, 8)] == [0, 1]


def test_the_blocks_that_have_not_moved_for_longest_are_named_with_their_place(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(tracker.time, "time", lambda: now[0])
    actor = TrackerActor()
    for block, where in ((1, "a"), (2, "b"), (3, "c")):
        actor.begin(block, where)
        now[0] += 10
    actor.enter(1, "being annotated", "d")
    actor.leave(3)
    now[0] += 5
    assert actor.oldest(9) == [(2, "being loaded", "b", 25.0), (1, "being annotated", "d", 5.0)]
    assert actor.stages() == {"being annotated": 1, "being loaded": 1}
    assert actor.oldest(1) == [(2, "being loaded", "b", 25.0)]


def test_a_setting_that_workers_find_is_the_first_ones():
    actor = TrackerActor()
    assert [actor.agree_on("batch_size", value) for value in (4, 8)] == [4, 4]
    assert actor.settings() == {"batch_size": 4}


def test_without_ray_it_says_nothing():
    assert BlockTracker().agree_on("batch_size", 8) == 8
    assert BlockTracker().settings() == BlockTracker().stages() == {}
    assert BlockTracker().begin(3) == 0
    BlockTracker().enter(3, "being written")
    BlockTracker().leave(3)


def test_workers_and_driver_share_one_through_ray(local_ray):
    import ray

    shared = BlockTracker.start()
    begin = ray.remote(num_cpus=0)(lambda: (shared.begin(7), shared.enter(7, "being written")))
    assert [ray.get(begin.remote())[0] for _ in range(2)] == [0, 1]
    shared.begin(8)
    shared.leave(8)
    text = shared.describe(30)
    assert "block 7 being written for 0 s on" in text
    assert "block 8" not in text
    assert "CPUs" in text
    assert [shared.agree_on("batch_size", value) for value in (4, 8)] == [4, 4]
    assert shared.settings() == {"batch_size": 4}


def test_a_block_that_ends_every_worker_ends_the_run(local_ray):
    shared = BlockTracker.start()
    assert [shared.begin(7) for _ in range(tracker.MAX_ATTEMPTS)] == list(range(tracker.MAX_ATTEMPTS))
    with pytest.raises(RuntimeError, match="block 7 has ended 20 workers"):
        shared.begin(7)
