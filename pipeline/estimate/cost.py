"""What a night would take on a given cluster: seconds, requests and dollars, each with its range, from a survey and a trial."""

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.estimate.profile import Trial
from pipeline.estimate.scan import Survey
from pipeline.images.coalesce import SPAN
from pipeline.inputs.manifest import MAX_BLOCK_ROWS

# What a block takes of requests, as benchmarks/storage_requests.py counts them: three GETs and two HEADs, and a PUT.
GETS_A_BLOCK, PUTS_A_BLOCK = 5, 1
KEYS_A_PAGE = 1000
GET_DOLLARS, PUT_DOLLARS = 0.4e-6, 5e-6  # S3's list prices, us-east-1
START_SECONDS = (15.0, 60.0)  # of Ray, the imports and the model's weights
SLACK = 1.3  # what a run may take more than its parts: stages that wait for each other, the last blocks


@dataclass(frozen=True)
class Cluster:
    """What there is to work with, and what an hour of it costs, if that is known."""

    cpus: int
    gpus: int
    dollars_an_hour: float | None


@dataclass(frozen=True)
class Range:
    least: float
    likely: float
    most: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.least + other.least, self.likely + other.likely, self.most + other.most)

    def times(self, factor: float) -> "Range":
        return Range(self.least * factor, self.likely * factor, self.most * factor)


@dataclass(frozen=True)
class Forecast:
    """`encoded` are the images whose bytes no other has had. `seconds` is None where the trial's device is not the cluster's."""

    fetched: int
    encoded: Range
    bytes: Range
    seconds: Range | None
    requests: Range
    dollars: Range | None
    request_dollars: Range
    limited_by: str | None

    def public(self) -> dict[str, Any]:
        return asdict(self)


def forecast(survey: Survey, trial: Trial, cluster: Cluster, block_rows: int | None) -> Forecast:
    encoded = _encoded(survey)
    size = mean_of(trial.bytes)
    unsized = survey.new - survey.sized
    volume = Range(*(survey.bytes + unsized * each for each in (size.least, size.likely, size.most)))
    decode = mean_of(trial.decode)
    for_fetching = survey.new * trial.fetch_core
    loading = Range(*(for_fetching + n * s for n, s in zip(_three(encoded), _three(decode), strict=True)))
    annotating = encoded.times(trial.annotate * (trial.cores if trial.device == "cpu" else 1))
    seconds, limited_by = _seconds(loading, annotating, trial.device, cluster)
    requests = _requests(survey, volume, block_rows or MAX_BLOCK_ROWS)
    hours = seconds and seconds.times(1 / 3600)
    return Forecast(
        fetched=survey.new,
        encoded=encoded,
        bytes=volume,
        seconds=seconds,
        requests=requests[0] + requests[1],
        dollars=hours.times(cluster.dollars_an_hour) if hours and cluster.dollars_an_hour is not None else None,
        request_dollars=requests[0].times(GET_DOLLARS) + requests[1].times(PUT_DOLLARS),
        limited_by=limited_by,
    )


def mean_of(values: np.ndarray) -> Range:
    """The mean with its 95 % interval (normal approximation), and zeros where there is nothing."""
    if not len(values):
        return Range(0, 0, 0)
    mean = float(np.mean(values))
    half = 1.96 * statistics.stdev(values.tolist()) / math.sqrt(len(values)) if len(values) > 1 else mean
    return Range(max(0.0, mean - half), mean, mean + half)


def _encoded(survey: Survey) -> Range:
    """Every image may be new; copies that the listing shows are not; earlier nights say what share it was then."""
    certain = survey.new - (survey.copies or 0)
    likely = min(certain, round(survey.new * (1 - survey.repost_share))) if survey.repost_share is not None else certain
    return Range(likely, likely, certain)


def _seconds(loading: Range, annotating: Range, device: str, cluster: Cluster) -> tuple[Range | None, str | None]:
    """On the clock, and what it is that takes it."""
    if (device == "cuda") != bool(cluster.gpus):
        return None, None
    start = Range(START_SECONDS[0], sum(START_SECONDS) / 2, START_SECONDS[1])
    if device == "cpu":
        work = (loading + annotating).times(1 / cluster.cpus)
        limited_by = "the model" if annotating.likely > loading.likely else "fetching and decoding"
    else:
        on_gpus, on_cpus = annotating.times(1 / cluster.gpus), loading.times(1 / cluster.cpus)
        work = Range(*map(max, zip(_three(on_gpus), _three(on_cpus), strict=True)))
        limited_by = "the model" if on_gpus.likely > on_cpus.likely else "fetching and decoding"
    return Range(work.least, work.likely * math.sqrt(SLACK), work.most * SLACK) + start, limited_by


def _requests(survey: Survey, volume: Range, block_rows: int) -> tuple[Range, Range]:
    """GETs and HEADs; PUTs and LISTs. Of images within files, as many as there are spans, and no more than images."""
    alone = survey.new - survey.in_files
    share = survey.in_files / max(survey.new, 1)
    spans = [min(survey.in_files, math.ceil(share * size / SPAN)) for size in _three(volume)]
    blocks = math.ceil(survey.new / block_rows)
    gets = Range(*(alone + count + GETS_A_BLOCK * blocks for count in spans))
    puts = PUTS_A_BLOCK * blocks + math.ceil(survey.listed / KEYS_A_PAGE)
    return gets, Range(puts, puts, puts)


def _three(values: Range) -> tuple[float, float, float]:
    return values.least, values.likely, values.most
