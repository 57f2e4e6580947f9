"""A run's numbers for Prometheus. Ray's agent on the driver's node exports them, their names with the prefix `ray_`.

All are the driver's own: it sees what every block took and came to, and the board tells where each block is. The label `model` is in
all of them, so that two models on one cluster are told apart. The run's id is in `ugrie_run_info` alone: as a label of all it would make
every night a new set of series for ever. Gauges are gone seconds after the driver is; counters stay as long as Ray does.
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
from pipeline.run.resources import Shares, connect_ray
from pipeline.stages.tracker import Board
from pipeline.table.run_record import RunRecord
from pipeline.table.schema import STAGES

logger = logging.getLogger(__name__)
EVERY_SECONDS = 5.0
NOT_BEGUN = "not yet begun"

METRICS: dict[str, tuple[type[Counter] | type[Gauge], str, tuple[str, ...]]] = {
    "ugrie_images_total": (Counter, "Images whose rows are written, by status; a repost has the bytes of an earlier image", ("status",)),
    "ugrie_stage_seconds_total": (
        Counter,
        "Seconds of all workers together in fetch, decode and annotate, of the driver in commit",
        ("stage",),
    ),
    "ugrie_images_per_second": (Gauge, "Images per second since the run's first block", ()),
    "ugrie_run_images": (Gauge, "Images of the run", ()),
    "ugrie_run_images_done": (Gauge, "Images of the run whose rows are written", ()),
    "ugrie_blocks": (Gauge, "Blocks of the run that are not written yet, by where they are", ("stage",)),
    "ugrie_workers": (Gauge, "Annotators and loaders that may be at work at once", ("kind",)),
    "ugrie_run_info": (Gauge, "1 while the run is at work", ("run_id", "date", "device")),
    "ugrie_last_success_timestamp_seconds": (Gauge, "When a run was last committed, in seconds since 1970", ()),
}


class Metrics:
    """Tells Ray how far a run is: every few seconds, by a thread, while the context is open. `add` is called once a block."""

    def __init__(self, plan: Plan, shares: Shares, board: Board, progress: Progress):
        self.board, self.progress = board, progress
        self.left = len(plan.todo)
        self.stages: set[str] = set()
        self.meters = meters(plan.tables.model)
        self.info = {"run_id": plan.config.run_id, "date": plan.config.date.isoformat(), "device": shares.device}
        self.workers = {"annotators": shares.actors} | ({} if plan.config.from_embeddings else {"loaders": shares.loaders})
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        self.thread.join(EVERY_SECONDS)  # no longer: a run that was told to stop has no time
        if error is None:
            self.tell()

    def add(self, written: dict[str, Any]) -> None:
        """Counts a block, by what its writer said of it (`pipeline.stages.write.WRITTEN`)."""
        self.left -= 1
        for status, count in written["status"]:
            self.meters["ugrie_images_total"].inc(count, {"status": status})
        for stage in STAGES:
            if seconds := written[f"{stage}_seconds"]:  # a counter takes no zero
                self.meters["ugrie_stage_seconds_total"].inc(seconds, {"stage": stage})

    def tell(self) -> None:
        """Sets the gauges. It never ends a run: what can't be told is left out."""
        try:
            blocks = self.board.stages()
        except Exception as error:  # the board may be on a node that has just died
            logger.debug("the board does not answer: %r", error)
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
        self.meters["ugrie_images_per_second"].set(self.progress.rate)  # which is None at first, and then not set

    def _watch(self) -> None:
        self.tell()
        while not self.over.wait(EVERY_SECONDS):
            self.tell()


def meters(model: str) -> dict[str, Any]:
    """The metrics by their names, for one model. Those of the same name are one, however often they are made."""
    return {name: kind(name, about, ("model", *tags)).set_default_tags({"model": model}) for name, (kind, about, tags) in METRICS.items()}


def tell_success(record: RunRecord) -> None:
    """Says that a run was committed. Where nothing was new Ray was not started: only a cluster that is there already is joined for it."""
    if not ray.is_initialized() and not os.environ.get("RAY_ADDRESS"):
        return
    try:
        connect_ray()
        metrics = meters(record.model)
        if seconds := record.timings["commit_seconds"]:
            metrics["ugrie_stage_seconds_total"].inc(seconds, {"stage": "commit"})
        metrics["ugrie_last_success_timestamp_seconds"].set(record.finished_at.timestamp())
    except Exception as error:  # the run is done
        logger.warning("run %s is committed, but Prometheus could not be told: %s", record.run_id, error)
