"""The batch size with the least time per crop is found within the time limit."""

import time

import pytest
import torch

from ugrie.vision import batch_size
from ugrie.vision.batch_size import ON_CPU, best_batch_size
from ugrie.vision.encoder import Encoder


@pytest.fixture
def costing(tower, monkeypatch):
    """A tower that takes `cost(size)` seconds for a batch, on a simulated clock."""
    clock = [0.0]
    monkeypatch.setattr(batch_size.time, "perf_counter", lambda: clock[0])

    def make(cost):
        sizes: list[int] = []

        def embed(encoder: Encoder, crops: torch.Tensor) -> torch.Tensor:
            assert torch.get_num_threads() == 1
            sizes.append(len(crops))
            clock[0] += cost(len(crops))
            return crops

        monkeypatch.setattr(Encoder, "embed", embed)
        return Encoder.bundled(tower), sizes

    return make


@pytest.mark.parametrize(
    ("cost", "best"),
    [
        (lambda n: 0.01 * n * (1 + abs(n - 4)), 4),
        (lambda n: 0.01 + 0.001 * n, 32),
        (lambda n: 0.01 * n, 1),
        (lambda n: 0.01 * n * (0.98 if n > 1 else 1), 1),
    ],
    ids=["valley", "falling", "flat", "hardly_worth_it"],
)
def test_the_cheapest_size_is_taken_and_the_smaller_one_of_two_alike(costing, cost, best):
    encoder, _ = costing(cost)
    assert best_batch_size(encoder, seconds=100) == best


def test_sizes_that_would_take_longer_than_there_is_time_are_not_tried(costing):
    encoder, sizes = costing(lambda n: 0.2 * n)
    assert best_batch_size(encoder, seconds=2.0) == 1
    assert max(sizes) == 4, "after 0.2, 0.4 and 0.8 s, another 1.6 s would be too long"


def test_larger_sizes_are_not_tried_once_two_have_cost_more(costing):
    encoder, sizes = costing(lambda n: 0.01 * n * (1 + abs(n - 2)))
    assert best_batch_size(encoder, seconds=100) == 2
    assert max(sizes) == 8


def test_a_size_that_the_device_has_no_memory_for_ends_the_trial(costing):
    def cost(size: int) -> float:
        if size > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 0.01 + 0.001 * size

    encoder, _ = costing(cost)
    assert best_batch_size(encoder, seconds=100) == 8


def test_a_real_tower_is_tried_in_a_moment_and_torch_keeps_its_threads(tower):
    before, clock = torch.get_num_threads(), time.perf_counter()
    assert best_batch_size(Encoder.bundled(tower), seconds=0.01) in ON_CPU
    assert torch.get_num_threads() == before
    assert time.perf_counter() - clock < 5
