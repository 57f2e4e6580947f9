"""What a night would take, computed from a survey and a trial."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.estimate.cost import Cluster, forecast, mean_of
from pipeline.estimate.profile import Trial
from pipeline.estimate.scan import Survey

SURVEY = Survey(
    listed=1_000_000, known=0, new=1_000_000, bytes=10**11, sized=1_000_000, copies=None, in_files=0, repost_share=None, sample=[]
)
TRIAL = Trial(
    status={"ok": 64},
    failures=[],
    bytes=np.full(64, 10**5),
    fetch_core=0.001,
    fetch_wait=0.01,
    decode=np.full(64, 0.004),
    annotate=0.005,
    device="cpu",
    cores=2,
    batch_size=8,
)
CPUS, GPUS = Cluster(16, 0, 1.0), Cluster(16, 2, 4.0)


def test_on_cpus_the_stages_share_the_cores():
    found = forecast(SURVEY, TRIAL, CPUS, None)
    work = 1_000_000 * (0.001 + 0.004 + 2 * 0.005) / 16
    assert found.seconds.least == pytest.approx(work, abs=60)
    assert found.seconds.least < found.seconds.likely < found.seconds.most < 1.4 * work
    assert found.limited_by == "the model"
    assert found.dollars.least == pytest.approx(found.seconds.least / 3600)


def test_on_gpus_the_slower_side_counts():
    trial = replace(TRIAL, device="cuda")
    found = forecast(SURVEY, trial, GPUS, None)
    assert found.limited_by == "the model"
    assert found.seconds.least == pytest.approx(1_000_000 * 0.005 / 2, abs=60)
    found = forecast(SURVEY, replace(trial, annotate=0.0001), GPUS, None)
    assert found.limited_by == "fetching and decoding"
    assert found.seconds.least == pytest.approx(1_000_000 * 0.005 / 16, abs=60)


@pytest.mark.parametrize(("device", "cluster"), [("cpu", GPUS), ("cuda", CPUS)])
def test_the_time_is_not_known_where_the_sample_had_another_device(device, cluster):
    found = forecast(SURVEY, replace(TRIAL, device=device), cluster, None)
    assert (found.seconds, found.dollars, found.limited_by) == (None, None, None)
    assert found.requests.likely > 1_000_000


def test_copies_are_fetched_and_not_encoded():
    found = forecast(replace(SURVEY, copies=400_000), TRIAL, CPUS, None)
    assert (found.fetched, found.encoded.least, found.encoded.most) == (1_000_000, 600_000, 600_000)
    found = forecast(replace(SURVEY, repost_share=0.25), TRIAL, CPUS, None)
    assert (found.encoded.least, found.encoded.likely, found.encoded.most) == (750_000, 750_000, 1_000_000)


def test_images_within_files_share_requests():
    alone = forecast(SURVEY, TRIAL, CPUS, None).requests
    packed = forecast(replace(SURVEY, in_files=1_000_000), TRIAL, CPUS, None).requests
    assert alone.likely > 1_000_000
    assert packed.likely < 100_000


def test_sizes_that_were_not_listed_are_taken_from_the_sample():
    trial = replace(TRIAL, bytes=np.array([10_000, 30_000] * 32))
    found = forecast(replace(SURVEY, bytes=0, sized=0), trial, CPUS, None).bytes
    assert found.likely == pytest.approx(2e10)
    assert found.least < 2e10 < found.most
    assert forecast(SURVEY, trial, CPUS, None).bytes.least == 10**11


def test_a_mean_has_an_interval_that_narrows():
    draw = np.random.default_rng(0)
    few, many = mean_of(draw.exponential(1, 16)), mean_of(draw.exponential(1, 1600))
    assert few.least < 1 < few.most
    assert many.most - many.least < (few.most - few.least) / 4
    assert mean_of(np.empty(0)).likely == 0
    assert mean_of(np.array([2.0])).most == 4
