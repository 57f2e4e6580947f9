"""Tells whether loaders keep up with annotators on GPUs, and how many CPUs are missing if they don't."""

import math
from collections.abc import Mapping

from pipeline.config import AnnotateConfig
from pipeline.run.resources import Allocation

BUSY = 0.9  # of the time: annotators that compute for so long are not kept waiting


def loaders_missing(seconds: Mapping[str, float], elapsed: float, allocation: Allocation) -> int:
    """Return how many more loaders would keep the annotators busy. On CPUs, which loaders and annotators share, it is 0.

    `seconds` are those that all workers together have spent in each stage during the `elapsed` seconds.
    """
    annotating = seconds["annotate"]
    if allocation.device == "cpu" or not annotating or annotating > BUSY * elapsed * allocation.actors:
        return 0
    needed = allocation.actors * (seconds["fetch"] + seconds["decode"]) / annotating
    return max(0, math.ceil(needed) - allocation.loaders)


def advice(missing: int, seconds: Mapping[str, float], loaders: int, config: AnnotateConfig) -> str:
    """Return on one line what to do about missing loaders: where decoding takes longest, CPUs; where fetching does, more at once."""
    if seconds["fetch"] > seconds["decode"]:
        remedy = f"they wait for the storage: raise fetch_concurrency, which is {config.fetch_concurrency}, or add CPUs"
    elif config.num_loaders:
        remedy = f"raise num_loaders, which is {config.num_loaders}, or leave it out"
    else:
        remedy = "add CPUs, on machines without a GPU too"
    return f"the GPUs wait for images: {loaders} loaders don't keep them busy, {loaders + missing} would; {remedy}"
