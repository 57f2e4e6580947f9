"""Executes a plan on Ray: annotates the blocks that are left, verifies all of them, and merges them into the table's files."""

import datetime as dt
import logging
import time
from array import array
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import DataContext, ExecutionResources

from pipeline.config import AnnotateConfig
from pipeline.images.decode import identity
from pipeline.run.balance import advice, loaders_missing
from pipeline.run.graph import graph
from pipeline.run.metrics import Metrics
from pipeline.run.plan import Plan, overtaken_ids, too_many_failed
from pipeline.run.progress import Progress
from pipeline.run.resources import Allocation, allocate, await_workers, connect_ray
from pipeline.run.watchdog import watched
from pipeline.stages import merge
from pipeline.stages.block_memory import bound_block_memory
from pipeline.stages.block_numbers import are_handed_out
from pipeline.stages.dedup import Deduplicator, EarlierRows
from pipeline.stages.merge import VerificationError
from pipeline.stages.tracker import BlockTracker
from pipeline.table.commit import committing_path, part_prefix
from pipeline.table.schema import STAGES
from pipeline.table.stats import FailuresError, check_failures, sum_counts
from pipeline.table.suppressed import RunLists
from ugrie.schemes.scheme import Scheme

logger = logging.getLogger(__name__)
REPEATS = 3  # of blocks whose duplicates could not be copied
BALANCE_SECONDS = 60.0  # since the first block, until it is clear whether the GPUs wait for images


@dataclass(frozen=True)
class RunResult:
    """An executed run: its files (paths within the output), counts, seconds, and the settings that it found."""

    files: tuple[str, ...]
    counts: dict[str, Any]
    precision: str | None  # of the image tower; None where no image was read
    timings: dict[str, float | None]
    tuning: dict[str, Any]
    lists: RunLists  # of images that were left out


@dataclass
class MergedFiles:
    """Merged files: the sum of their counts, and little of each, since there may be ten thousand.

    `paths` are those of files with rows, `again` the blocks of each file that could not be written (`Merger`), by its path. `may_pass` are
    the numbers of blocks with a failure that may pass.
    """

    schemes: tuple[Scheme, ...]
    counts: dict[str, Any] = field(init=False)
    paths: list[str] = field(default_factory=list)
    again: dict[str, list[int]] = field(default_factory=dict)
    may_pass: array = field(default_factory=lambda: array("L"))
    suppressed: int = 0
    overtaken: int = 0

    def __post_init__(self) -> None:
        self.counts = sum_counts([], self.schemes)

    def add(self, target: str, result: dict[str, Any]) -> None:
        """Add the merger's result for a file. It takes some 0.1 ms, so no task need do it."""
        if "again" in result:
            self.again[target] = result["again"]
            return
        self.counts = sum_counts([self.counts, result], self.schemes)
        self.may_pass.extend(result["may_pass"])
        self.suppressed += result["suppressed"]
        self.overtaken += result["overtaken"]
        if result["rows"]:
            self.paths.append(target)


@dataclass
class Work:
    """The work on some blocks: `timings` in seconds, of all workers together; the rate; allocation of time busy; settings found."""

    timings: dict[str, float | None] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)


def execute(plan: Plan) -> RunResult:
    """Annotate the blocks that are left, verify and merge all blocks. Where nothing is new, Ray is not started.

    Raises StorageError, StalledError, VerificationError, FailuresError, and what workers raise, wrapped by Ray.
    """
    begun = time.perf_counter()
    if not plan.manifest.rows:
        counted = "images" if plan.tables.kept is None else "rows"
        logger.info("nothing new: %d %s listed, all annotated before by %s", plan.manifest.listed, counted, plan.tables.model)
        timings = {"ray_seconds": 0.0, "annotate_seconds": 0.0, "commit_seconds": time.perf_counter() - begun}
        precision = None if plan.config.from_embeddings else plan.config.precision
        return RunResult((), sum_counts([], plan.tables.schemes), precision, dict(timings), {}, plan.lists)
    connect_ray()
    await_workers(plan.config)
    allocation = allocate(plan.config)  # once: a GPU that joins or leaves later does not change the precision
    ready = time.perf_counter()
    work = annotate_blocks(plan, allocation, open_dedup(plan, allocation)) if len(plan.todo) else Work()
    annotated = time.perf_counter()
    merged, lists = merge_blocks(plan, allocation)
    counts = merged.counts
    try:
        check_failures(counts, plan.config.max_failed_ratio)
    except FailuresError:
        with suppress(FileNotFoundError):
            plan.output.remove(committing_path(plan.config.run_id))
        for path in merged.paths:  # no record will list them
            with suppress(FileNotFoundError):
                plan.output.remove(path)
        too_many_failed(plan, merged.may_pass)
        raise
    return RunResult(
        files=tuple(sorted(merged.paths)),
        counts=counts | {"overtaken": plan.manifest.rows - counts["rows"] - merged.suppressed, "suppressed": merged.suppressed},
        lists=lists,
        precision=None if plan.config.from_embeddings else _precision(plan.config, allocation),
        timings={
            "ray_seconds": ready - begun,
            "annotate_seconds": annotated - ready,
            "commit_seconds": time.perf_counter() - annotated,
            **work.timings,
        },
        tuning=work.tuning,
    )


def open_dedup(plan: Plan, allocation: Allocation) -> Deduplicator:
    """Start the deduplication of a run: over the blocks that are done and, unless all is annotated again, over earlier runs."""
    config = plan.config
    if config.from_embeddings:
        return Deduplicator()  # asking costs more than annotating
    days = 0 if config.reannotate else config.reuse_days
    return Deduplicator.start(
        EarlierRows(
            output=plan.output,
            folder=plan.rows_folder,
            done=np.setdiff1d(np.arange(plan.manifest.blocks), plan.todo),
            tables=plan.tables,
            precision=_precision(config, allocation),
            since=plan.started_at - dt.timedelta(days=days) if days else None,
            decoder=identity(config),
        ),
        allocation.loaders,
    )


def annotate_blocks(plan: Plan, allocation: Allocation, dedup: Deduplicator) -> Work:
    """Load, annotate and write the blocks that are left."""
    _configure_ray_data(plan, allocation)
    tracker = BlockTracker.start()
    seconds: Counter[str] = Counter()
    since_first: Counter[str] = Counter()
    tuning: dict[str, Any] = allocation.public()
    warned = plan.config.from_embeddings  # which has no loaders
    done = plan.manifest.rows - int(plan.manifest.rows_in(plan.todo).sum())
    with Progress(plan.manifest.rows, done) as progress, Metrics(plan, allocation, tracker, progress) as metrics:
        written = graph(plan, allocation, tracker, dedup).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        for batch in watched(written, plan.config.stall_timeout, tracker.describe):
            for row in pa.table(batch).to_pylist():
                took = {stage: row[f"{stage}_seconds"] for stage in STAGES}
                seconds.update(took)
                if progress.first is None:
                    tuning |= tracker.settings()
                    logger.info(", ".join(f"{name} {value}" for name, value in tuning.items()))
                else:
                    since_first.update(took)
                    if not warned and progress.seconds_since_first > BALANCE_SECONDS:
                        warned = True
                        if missing := loaders_missing(since_first, progress.seconds_since_first, allocation):
                            logger.warning(advice(missing, since_first, allocation.loaders, plan.config))
                progress.add(row["rows"], row["ok"])
                metrics.add(row)
        tuning |= tracker.settings()  # also those of actors that started later
    if problem := tuning.get("not_compiled"):
        logger.warning("the image tower ran uncompiled, which takes longer, since compiling failed (Triton needs gcc): %s", problem)
    if "memory_was_full" in tuning:
        logger.warning("a GPU's memory was full, and less was done at once: fewer actors on a card, or a lower batch_size, may be faster")
    timings: dict[str, float | None] = {f"all_{stage}_seconds": seconds[stage] for stage in STAGES}
    timings |= {"first_block_seconds": progress.first_block_seconds, "images_per_second": progress.rate}
    if progress.rate:
        elapsed = progress.seconds_since_first
        timings["annotators_busy"] = min(1.0, since_first["annotate"] / (elapsed * allocation.actors))
        if not plan.config.from_embeddings:  # which has no loaders
            timings["loaders_busy"] = min(1.0, (since_first["fetch"] + since_first["decode"]) / (elapsed * allocation.loaders))
            if missing := loaders_missing(since_first, elapsed, allocation):
                tuning["loaders_missing"] = missing
    return Work(timings, tuning)


def merge_blocks(plan: Plan, allocation: Allocation) -> tuple[MergedFiles, RunLists]:
    """Verify the blocks and merge them into the table's files, a task each. Return these, and the run's lists.

    Images that another run annotated since the manifest was written are left out, and those on the lists. Merging may take long: if another
    run was committed meanwhile, or an erasure added a list, the blocks are merged once more.
    """
    lists = plan.lists.now(plan.output, plan.config.run_id)
    overtaken = overtaken_ids(plan)
    while True:
        if len(overtaken):
            logger.info("other runs annotated images since this run began: their rows here are left out")
        skipped = plan.manifest.blocks_within(plan.output, overtaken)
        merged = _merge_groups(replace(plan, lists=lists), allocation, skipped, overtaken)
        left_out = int(plan.manifest.rows_in(skipped).sum()) + merged.overtaken + merged.suppressed
        if (rows := merged.counts["rows"]) + left_out != plan.manifest.rows:
            raise VerificationError(f"{rows} rows and {left_out} that are left out are not the manifest's {plan.manifest.rows}")
        now = overtaken_ids(plan)
        plan.output.write(committing_path(plan.config.run_id), b"")  # from here on an erasure waits for the record
        lists_now = lists.now(plan.output, plan.config.run_id)
        if len(now) == len(overtaken) and lists_now.names == lists.names:
            return merged, lists
        overtaken, lists = now, lists_now


def _merge_groups(plan: Plan, allocation: Allocation, skipped: np.ndarray, overtaken: np.ndarray) -> MergedFiles:
    """Verify and merge all blocks but those skipped, without the rows of `overtaken` images.

    A block is annotated again where the rows that its duplicates are copied from no longer exist. Its other images are annotated
    again with it; a row that can't be read again as it was may then be missing in another block, which is why this repeats.
    """
    groups = merge.block_groups(plan.output, plan.rows_folder, plan.manifest, skipped)
    prefix = part_prefix(plan.config.date, plan.config.run_id, plan.attempt)
    todo = {f"{prefix}-{i:05d}.parquet": group for i, group in enumerate(groups)}
    merged = MergedFiles(plan.tables.schemes)
    for repeats_left in reversed(range(1 + REPEATS)):
        _merge_files(plan, allocation, todo, overtaken, merged)
        again = sorted({number for numbers in merged.again.values() for number in numbers})
        if not again or not repeats_left:
            break
        todo = {target: todo[target] for target in merged.again}
        merged.again = {}
        logger.info("%d blocks hold duplicates whose annotation is gone: these blocks are annotated again", len(again))
        annotate_blocks(replace(plan, todo=np.array(again)), allocation, Deduplicator())
    if again:
        raise VerificationError(f"{len(again)} blocks hold duplicates whose rows can't be copied from any other, the first {again[0]}")
    return merged


def _configure_ray_data(plan: Plan, allocation: Allocation) -> None:
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the driver logs what ends a run, once
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # Ray's own error does not name it
    context.target_max_block_size = None  # a block of ours stays one of Ray's
    bound_block_memory(context)
    # Blocks that are loaded and not annotated are lost with their node or the driver: no more of them than keep everyone busy.
    waiting = 2 * allocation.loaders + 4 * allocation.actors
    block_bytes = plan.manifest.block_rows * plan.tables.crop_bytes
    operators = 2 if plan.config.from_embeddings else 3
    # Ray Data divides the memory evenly among operators. A source that is one of them needs nothing of its share.
    shares = (operators + are_handed_out(plan.todo)) / operators
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=int(waiting * block_bytes * shares))


def _precision(config: AnnotateConfig, allocation: Allocation) -> str:
    """Return the image tower's precision, with auto resolved."""
    if config.precision != "auto":
        return config.precision
    return "fp16" if allocation.device == "cuda" else "fp32"


def _merge_files(plan: Plan, allocation: Allocation, todo: dict[str, np.ndarray], overtaken: np.ndarray, merged: MergedFiles) -> None:
    """Merge each group of blocks into its file, and add it to those that are merged.

    As many run at once as there are pairs of CPUs, since each takes some 0.4 GB of memory; none on a node without CPUs, which is a
    head that is kept free of work.
    """
    merger = merge.Merger(plan.output, plan.rows_folder, plan.manifest, plan.tables)
    task: Any = ray.remote(num_cpus=allocation.write, scheduling_strategy="SPREAD")(
        lambda target, numbers, overtaken, suppressed: merger(target, numbers, overtaken, suppressed)
    )
    most = max(1, int(ray.cluster_resources().get("CPU", 0) // 2))
    ids, suppressed = ray.put(overtaken), ray.put(plan.lists.suppressed)
    running: dict[Any, str] = {}
    for target, numbers in todo.items():
        running[task.remote(target, numbers, ids, suppressed)] = target
        if len(running) == most:
            merged.add(*_next(running))
    while running:
        merged.add(*_next(running))


def _next(running: dict[Any, str]) -> tuple[str, dict[str, Any]]:
    """Wait for one of the running tasks; return its target and its result."""
    (done,), _ = ray.wait(list(running))
    return running.pop(done), ray.get(done)
