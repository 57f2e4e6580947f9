"""The estimated cost of a run, from an input scan and a profile."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.estimate.cost import estimate_cost, mean_of
from tests.plugins.estimates import CPUS, GPUS, PROFILE, SCAN


def test_on_cpus_the_stages_share_the_cores():
    found = estimate_cost(SCAN, PROFILE, CPUS, None)
    work = 1_000_000 * (0.001 + 0.004 + 2 * 0.005) / 16
    assert found.seconds.least == pytest.approx(work, abs=60)
    assert found.seconds.least < found.seconds.likely < found.seconds.most < 1.4 * work
    assert found.limited_by == "the model"
    assert found.dollars.least == pytest.approx(found.seconds.least / 3600)


def test_on_gpus_the_slower_side_counts():
    profile = replace(PROFILE, device="cuda")
    found = estimate_cost(SCAN, profile, GPUS, None)
    assert found.limited_by == "the model"
    assert found.seconds.least == pytest.approx(1_000_000 * 0.005 / 2, abs=60)
    found = estimate_cost(SCAN, replace(profile, annotate=0.0001), GPUS, None)
    assert found.limited_by == "fetching and decoding"
    assert found.seconds.least == pytest.approx(1_000_000 * 0.005 / 16, abs=60)


@pytest.mark.parametrize(("annotate", "missing"), [(0.005, 0), (0.0005, 4), (0.0001, 84)])
def test_the_cpus_that_gpus_need_are_counted(annotate, missing):
    """Loading takes 5 ms of a CPU, annotating `annotate` s of one of two GPUs, and there are 16 CPUs."""
    assert estimate_cost(SCAN, replace(PROFILE, device="cuda", annotate=annotate), GPUS, None).cpus_missing == missing
    assert estimate_cost(SCAN, replace(PROFILE, annotate=annotate), CPUS, None).cpus_missing == 0
    nothing_new = replace(SCAN, repost_share=1.0)
    assert estimate_cost(nothing_new, replace(PROFILE, device="cuda", annotate=annotate), GPUS, None).cpus_missing == 0


@pytest.mark.parametrize(("device", "cluster"), [("cpu", GPUS), ("cuda", CPUS)])
def test_the_time_is_not_known_where_the_sample_had_another_device(device, cluster):
    found = estimate_cost(SCAN, replace(PROFILE, device=device), cluster, None)
    assert (found.seconds, found.dollars, found.limited_by) == (None, None, None)
    assert found.requests.likely > 1_000_000


def test_copies_are_fetched_and_not_encoded():
    found = estimate_cost(replace(SCAN, copies=400_000), PROFILE, CPUS, None)
    assert (found.fetched, found.encoded.least, found.encoded.most) == (1_000_000, 600_000, 600_000)
    found = estimate_cost(replace(SCAN, repost_share=0.25), PROFILE, CPUS, None)
    assert (found.encoded.least, found.encoded.likely, found.encoded.most) == (750_000, 750_000, 1_000_000)


def test_images_within_files_share_requests():
    alone = estimate_cost(SCAN, PROFILE, CPUS, None).requests
    packed = estimate_cost(replace(SCAN, in_files=1_000_000), PROFILE, CPUS, None).requests
    assert alone.likely > 1_000_000
    assert packed.likely < 100_000


def test_sizes_that_were_not_listed_are_taken_from_the_sample():
    profile = replace(PROFILE, bytes=np.array([10_000, 30_000] * 32))
    found = estimate_cost(replace(SCAN, bytes=0, sized=0), profile, CPUS, None).bytes
    assert found.likely == pytest.approx(2e10)
    assert found.least < 2e10 < found.most
    assert estimate_cost(SCAN, profile, CPUS, None).bytes.least == 10**11


def test_a_mean_has_an_interval_that_narrows():
    draw = np.random.default_rng(0)
    few, many = mean_of(draw.exponential(1, 16)), mean_of(draw.exponential(1, 1600))
    assert few.least < 1 < few.most
    assert many.most - many.least < (few.most - few.least) / 4
    assert mean_of(np.empty(0)).likely == 0
    assert mean_of(np.array([2.0])).most == 4
