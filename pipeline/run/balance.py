"""Tells whether loaders keep up with annotators on GPUs, and how many CPUs are missing if they don't."""

import math
from collections.abc import Mapping

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


def advice(missing: int, allocation: Allocation) -> str:
    """Return what to do about missing loaders, on one line."""
    cpus = math.ceil(missing * allocation.load)
    return (
        f"the GPUs wait for images: {allocation.loaders} loaders can't keep {allocation.actors} annotators busy; "
        f"{cpus} more CPUs would, on machines without a GPU too"
    )
