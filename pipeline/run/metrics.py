"""Prometheus metrics of a run. Ray's agent on the driver's node exports them, with the prefix `ray_` in their names.

The driver sets all of them: it sees the results and timings of every block, and the tracker has each block's stage. All metrics have the
label `model`, to tell apart two models on one cluster. Only `ugrie_run_info` has the run's ID: as a label of all metrics it would add a
set of series with every run. Gauges vanish seconds after the driver's end; counters stay until Ray ends.
"""

import logging
import os
import threading
from types import TracebackType
from typing import Any, Self

import ray
from ray.util.metrics import Counter, Gauge

from pipeline.run.plan import Plan
from pipeline.run.progress import Progress
from pipeline.run.resources import Allocation, connect_ray
from pipeline.stages.tracker import BlockTracker
from pipeline.table.run_record import RunRecord
from pipeline.table.schema import STAGES

logger = logging.getLogger(__name__)
EVERY_SECONDS = 5.0
NOT_BEGUN = "not yet begun"

METRICS: dict[str, tuple[type[Counter] | type[Gauge], str, tuple[str, ...]]] = {
    "ugrie_images_total": (
        Counter,
        "Images whose rows are written, by status; a repost has the same bytes as an earlier image",
        ("status",),
    ),
    "ugrie_stage_seconds_total": (
        Counter,
        "Seconds of all workers together in fetch, decode and annotate, and of the driver in commit",
        ("stage",),
    ),
    "ugrie_images_per_second": (Gauge, "Images per second since the run's first block", ()),
    "ugrie_run_images": (Gauge, "Images of the run", ()),
    "ugrie_run_images_done": (Gauge, "Images of the run whose rows are written", ()),
    "ugrie_blocks": (Gauge, "Blocks of the run that are not written yet, by stage", ("stage",)),
    "ugrie_workers": (Gauge, "Annotators and loaders that may run in parallel", ("kind",)),
    "ugrie_run_info": (Gauge, "1 during the run", ("run_id", "date", "device")),
    "ugrie_last_success_timestamp_seconds": (Gauge, "Time of the last commit of a run, in seconds since 1970", ()),
}


class Metrics:
    """Updates the metrics: a thread sets the gauges every few seconds while the context is open, `add` counts each block."""

    def __init__(self, plan: Plan, allocation: Allocation, tracker: BlockTracker, progress: Progress):
        self.tracker, self.progress = tracker, progress
        self.left = len(plan.todo)
        self.stages: set[str] = set()
        self.meters = meters(plan.tables.model)
        self.info = {"run_id": plan.config.run_id, "date": plan.config.date.isoformat(), "device": allocation.device}
        self.workers = {"annotators": allocation.actors} | ({} if plan.config.from_embeddings else {"loaders": allocation.loaders})
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stopped.set()
        self.thread.join(EVERY_SECONDS)  # no longer: a run that is being stopped has no time
        if error is None:
            self.update()

    def add(self, written: dict[str, Any]) -> None:
        """Count a block, from its writer's result (`pipeline.stages.write.WRITTEN`)."""
        self.left -= 1
        for status, count in written["status"]:
            self.meters["ugrie_images_total"].inc(count, {"status": status})
        for stage in STAGES:
            if seconds := written[f"{stage}_seconds"]:  # Ray's counters refuse zero
                self.meters["ugrie_stage_seconds_total"].inc(seconds, {"stage": stage})

    def update(self) -> None:
        """Set the gauges. A tracker that does not answer never ends a run: its stages are left out."""
        try:
            blocks = self.tracker.stages()
        except Exception as error:  # the tracker's node may have died
            logger.debug("the tracker does not answer: %r", error)
            blocks = {}
        blocks[NOT_BEGUN] = max(0, self.left - sum(blocks.values()))
        self.stages |= blocks.keys()
        for stage in self.stages:
            self.meters["ugrie_blocks"].set(blocks.get(stage, 0), {"stage": stage})
        for kind, count in self.workers.items():
            self.meters["ugrie_workers"].set(count, {"kind": kind})
        self.meters["ugrie_run_info"].set(1, self.info)
        self.meters["ugrie_run_images"].set(self.progress.total)
        self.meters["ugrie_run_images_done"].set(self.progress.done)
        self.meters["ugrie_images_per_second"].set(self.progress.rate)  # None at first: Ray leaves it unset

    def _watch(self) -> None:
        self.update()
        while not self.stopped.wait(EVERY_SECONDS):
            self.update()


def meters(model: str) -> dict[str, Any]:
    """Return the metrics of one model by name. Ray merges metrics of the same name, however often they are created."""
    return {
        name: kind(name, description, ("model", *tags)).set_default_tags({"model": model})
        for name, (kind, description, tags) in METRICS.items()
    }


def record_success(record: RunRecord) -> None:
    """Record a run's commit. A run with nothing new has not started Ray: then an existing cluster is joined, and none is started."""
    if not ray.is_initialized() and not os.environ.get("RAY_ADDRESS"):
        return
    try:
        connect_ray()
        metrics = meters(record.model)
        if seconds := record.timings["commit_seconds"]:
            metrics["ugrie_stage_seconds_total"].inc(seconds, {"stage": "commit"})
        metrics["ugrie_last_success_timestamp_seconds"].set(record.finished_at.timestamp())
    except Exception as error:  # the run is committed all the same
        logger.warning("run %s is committed, but its metrics could not be set: %s", record.run_id, error)
