"""Estimates the cost of a run on a given cluster from an input scan and a profile: seconds, requests and dollars, with ranges."""

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.estimate.profile import Profile
from pipeline.estimate.scan import InputScan
from pipeline.images.coalesce import MAX_REQUEST_BYTES
from pipeline.inputs.manifest import MAX_BLOCK_ROWS

# Requests per block, counted by benchmarks/storage_requests.py: three GETs and two HEADs; one PUT.
GETS_PER_BLOCK, PUTS_PER_BLOCK = 5, 1
KEYS_PER_LIST = 1000
GET_DOLLARS, PUT_DOLLARS = 0.4e-6, 5e-6  # S3's list prices, us-east-1
OVERHEAD = 1.3  # a run's time over that of its stages, at most: stages wait for each other, and the last blocks leave workers idle


@dataclass(frozen=True)
class Cluster:
    """The size of a cluster, and its price per hour if known."""

    cpus: int
    gpus: int
    dollars_an_hour: float | None


@dataclass(frozen=True)
class Range:
    """An estimate between its bounds."""

    least: float
    likely: float
    most: float

    @classmethod
    def of(cls, function: Callable[..., float], *ranges: "Range") -> "Range":
        """Apply a function to the three values of each range in turn."""
        return cls(*map(function, *ranges))

    def __iter__(self) -> Iterator[float]:
        return iter((self.least, self.likely, self.most))

    def __add__(self, other: "Range") -> "Range":
        return Range.of(lambda a, b: a + b, self, other)

    def __mul__(self, factor: float) -> "Range":
        return Range.of(lambda value: value * factor, self)


START_SECONDS = Range(10.0, 25.0, 60.0)  # starting Ray, imports, loading the model's weights; on a GPU also compiling the tower


@dataclass(frozen=True)
class CostEstimate:
    """The cost of a run. `encoded` counts the images with new bytes. `seconds` is None if the profile's device is not the cluster's.

    `cpus_missing` is how many more CPUs would keep the cluster's GPUs busy.
    """

    fetched: int
    encoded: Range
    bytes: Range
    seconds: Range | None
    requests: Range
    dollars: Range | None
    request_dollars: Range
    limited_by: str | None
    cpus_missing: int

    def public(self) -> dict[str, Any]:
        return asdict(self)


def estimate_cost(scan: InputScan, profile: Profile, cluster: Cluster, block_rows: int | None) -> CostEstimate:
    """Estimate the cost of annotating the scan's new images in blocks of `block_rows` (None: MAX_BLOCK_ROWS)."""
    encoded = _encoded(scan)
    unsized = scan.new - scan.sized
    volume = Range.of(lambda size: scan.bytes + unsized * size, mean_of(profile.bytes))
    loading = Range.of(lambda images, seconds: scan.new * profile.fetch_core + images * seconds, encoded, mean_of(profile.decode))
    annotating = encoded * (profile.annotate * (profile.cores if profile.device == "cpu" else 1))
    seconds, limited_by = _seconds(loading, annotating, profile.device, cluster)
    gets, puts = _requests(scan, volume, block_rows or MAX_BLOCK_ROWS)
    return CostEstimate(
        fetched=scan.new,
        encoded=encoded,
        bytes=volume,
        seconds=seconds,
        requests=gets + puts,
        dollars=seconds * (cluster.dollars_an_hour / 3600) if seconds and cluster.dollars_an_hour is not None else None,
        request_dollars=gets * GET_DOLLARS + puts * PUT_DOLLARS,
        limited_by=limited_by,
        cpus_missing=_cpus_missing(loading, annotating, cluster) if profile.device == "cuda" and cluster.gpus else 0,
    )


def mean_of(values: np.ndarray) -> Range:
    """Return the mean with its 95 % confidence interval (normal approximation): of one value, 0 to twice it; without values, zeros."""
    if not len(values):
        return Range(0, 0, 0)
    mean = float(np.mean(values))
    half = 1.96 * statistics.stdev(values.tolist()) / math.sqrt(len(values)) if len(values) > 1 else mean
    return Range(max(0.0, mean - half), mean, mean + half)


def _encoded(scan: InputScan) -> Range:
    """Return the images to encode: at most all but the listing's duplicates, likely without the last runs' share of duplicates."""
    most = scan.new - (scan.copies or 0)
    likely = min(most, round(scan.new * (1 - scan.repost_share))) if scan.repost_share is not None else most
    return Range(likely, likely, most)


def _seconds(loading: Range, annotating: Range, device: str, cluster: Cluster) -> tuple[Range | None, str | None]:
    """Return the elapsed seconds and the stage that limits them, from core seconds of loading and device seconds of annotating.

    On a CPU both stages share the cores, and `annotating` is in core seconds too; on GPUs the slower stage counts.
    """
    if (device == "cuda") != bool(cluster.gpus):
        return None, None
    if device == "cpu":
        work = (loading + annotating) * (1 / cluster.cpus)
    else:
        loading, annotating = loading * (1 / cluster.cpus), annotating * (1 / cluster.gpus)
        work = Range.of(max, loading, annotating)
    seconds = Range(work.least, work.likely * math.sqrt(OVERHEAD), work.most * OVERHEAD) + START_SECONDS
    return seconds, "the model" if annotating.likely > loading.likely else "fetching and decoding"


def _cpus_missing(loading: Range, annotating: Range, cluster: Cluster) -> int:
    """Return the CPUs, beyond the cluster's, with which loading takes no longer than annotating on its GPUs.

    0 where nothing is annotated, since all images are duplicates.
    """
    if not annotating.likely:
        return 0
    return max(0, math.ceil(loading.likely / (annotating.likely / cluster.gpus)) - cluster.cpus)


def _requests(scan: InputScan, volume: Range, block_rows: int) -> tuple[Range, Range]:
    """Return the GETs and HEADs, and the PUTs and LISTs. Images within files share requests of MAX_REQUEST_BYTES."""
    alone = scan.new - scan.in_files
    share = scan.in_files / max(scan.new, 1)
    blocks = math.ceil(scan.new / block_rows)
    gets = Range.of(lambda size: alone + min(scan.in_files, math.ceil(share * size / MAX_REQUEST_BYTES)) + GETS_PER_BLOCK * blocks, volume)
    puts = PUTS_PER_BLOCK * blocks + math.ceil(scan.listed / KEYS_PER_LIST)
    return gets, Range(puts, puts, puts)
