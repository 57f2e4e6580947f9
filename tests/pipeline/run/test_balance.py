"""Whether GPUs wait for images, and how many CPUs they lack."""

import pytest

from pipeline.config import AnnotateConfig
from pipeline.run.balance import advice, loaders_missing
from pipeline.run.resources import Allocation

TWO_GPUS = Allocation("cuda", actors=2, least_actors=2, actor_cpus=0, actor_gpus=1, threads=None, loaders=6, load=1.0, write=0.25)


def seconds(load, annotate):
    return {"fetch": load / 4, "decode": load * 3 / 4, "annotate": annotate}


@pytest.mark.parametrize(
    ("took", "missing"),
    [
        (seconds(600, 190), 0),  # both annotators are busy for 95 of 100 s
        (seconds(600, 100), 6),  # a loader's second gives work for a sixth of a second: twelve keep two annotators busy
        (seconds(600, 101), 6),
        (seconds(599, 10), 114),
        (seconds(100, 100), 0),  # neither works all the time: they wait for something else
        (seconds(600, 0), 0),  # nothing but duplicates
    ],
)
def test_the_loaders_that_annotators_on_gpus_lack_are_counted(took, missing):
    assert loaders_missing(took, 100, TWO_GPUS) == missing


def test_on_cpus_none_is_missing():
    alone = Allocation("cpu", actors=1, least_actors=1, actor_cpus=1, actor_gpus=0, threads=1, loaders=1, load=1, write=1)
    assert loaders_missing(seconds(600, 10), 100, alone) == 0


@pytest.mark.parametrize(
    ("took", "settings", "remedy"),
    [
        (seconds(600, 10), {}, "add CPUs, on machines without a GPU too"),
        (seconds(600, 10), {"num_loaders": 6}, "raise num_loaders, which is 6, or leave it out"),
        ({"fetch": 400, "decode": 200}, {}, "they wait for the storage: raise fetch_concurrency, which is 16, or add CPUs"),
    ],
)
def test_what_to_do_depends_on_what_loaders_spend_their_time_with(took, settings, remedy):
    said = advice(7, took, 6, AnnotateConfig(input="in", output="out", **settings))
    assert said == f"the GPUs wait for images: 6 loaders don't keep them busy, 13 would; {remedy}"
