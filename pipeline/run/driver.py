"""A run from its plan to its record: load -> annotate -> write, verify, commit."""

import datetime as dt
import logging
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, ExecutionResources, TaskPoolStrategy
from ray.exceptions import RayTaskError

from pipeline.config import AnnotateConfig
from pipeline.errors import RunError, StorageError, UserError
from pipeline.images.decode import Limits
from pipeline.images.fetch import Fetcher
from pipeline.logs import name_run
from pipeline.report import page
from pipeline.run.metrics import Metrics, tell_success
from pipeline.run.plan import Plan, committed, prepare
from pipeline.run.progress import Progress
from pipeline.run.resources import Shares, await_workers, connect_ray, share_out
from pipeline.run.watchdog import StalledError, watched
from pipeline.stages import merge
from pipeline.stages.annotate import Annotator, AnnotatorSettings
from pipeline.stages.dedup import Past, Reposts
from pipeline.stages.load import Loader
from pipeline.stages.merge import VerificationError
from pipeline.stages.reannotate import Reannotator
from pipeline.stages.tracker import Board
from pipeline.stages.write import BlockWriter
from pipeline.storage.filesystem import connect
from pipeline.table import commit, delta
from pipeline.table.schema import SCHEMA_VERSION, STAGES
from pipeline.table.stats import FailuresError, add, check_failures
from ugrie.text import one_line

logger = logging.getLogger(__name__)
KNOWN = (StorageError, StalledError, VerificationError, FailuresError)
TIMES_AGAIN = 3


def annotate(config: AnnotateConfig) -> dict[str, Any]:
    """Annotates the input's images and commits the run. Returns its record (see docs/tables.md).

    Raises UserError before any cluster work begins, RunError where the run stops later; it can be resumed. A run that is done
    already is not done again; its record is returned.
    """
    record = committed(config)
    if record is not None:
        name_run(config.run_id)
        logger.info("run %s is done already, since %s: nothing to do", config.run_id, record["finished_at"])
    else:
        try:
            plan = prepare(config)
        except StorageError as error:
            raise _stopped(config.run_id, error) from error
        record = _committed(plan)
        tell_success(record)
    fs, root = connect(config.output, config.storage_options)
    page.beside(config, fs, root.rstrip("/"), record)  # while the manifest still says where the images are
    commit.tidy(fs, root.rstrip("/"), record)
    if config.table_format == "delta":
        try:
            delta.add(config.output, config.storage_options)
        except (StorageError, UserError) as error:
            run_id = record["run_id"]
            again = f"the same command with --run-id {run_id} adds it, or the next run"
            raise RunError(f"run {run_id} is committed, but not in the Delta table yet: {error}; {again}") from error
    return record


def _committed(plan: Plan) -> dict[str, Any]:
    """Does what is left of a run and commits it. Returns its record, which is another driver's if that was first."""
    run_id = plan.config.run_id
    if len(plan.todo) < plan.manifest.blocks:
        logger.info("going on with run %s: %d of %d blocks are left", run_id, len(plan.todo), plan.manifest.blocks)
    try:
        return commit.write_record(plan.fs, plan.root, _record(plan))
    except (KeyboardInterrupt, SystemExit):
        logger.warning("run %s was told to stop: the same command with --run-id %s goes on", run_id, run_id)
        raise
    except UserError:
        raise
    except Exception as error:
        if (record := committed(plan.config)) is not None:  # and with it, what this driver worked on is gone
            logger.info("run %s was committed by another driver", run_id)
            return record
        raise _stopped(run_id, error) from error


def _record(plan: Plan) -> dict[str, Any]:
    """Annotates what is left, verifies it all, and says what was done. Where there is nothing new, Ray is not started."""
    clock = time.perf_counter()
    rows, listed, known = plan.manifest.rows, plan.manifest.listed, plan.manifest.known
    shares: Shares | None = None
    if rows:
        connect_ray()
        await_workers(plan.config)
        shares = share_out(plan.config)  # once: a GPU that joins or leaves meanwhile changes nothing of the precision
    else:
        logger.info("nothing new: %d images listed, all annotated before by %s", listed, plan.tables.model)
    started = time.perf_counter()
    work, tuning = _work(plan, shares, _reposts(plan, shares)) if shares and plan.todo else ({}, {})
    annotated = time.perf_counter()
    files = _gather(plan, shares) if shares else []
    counts = add(files, plan.tables.schemes)
    check_failures(counts, plan.config.max_failed_ratio)
    timings = {
        "plan_seconds": plan.seconds,
        "ray_seconds": started - clock,
        "annotate_seconds": annotated - started,
        "commit_seconds": time.perf_counter() - annotated,
        **work,
    }
    config = plan.config.public()
    return {
        "run_id": plan.config.run_id,
        "schema_version": SCHEMA_VERSION,
        "model": plan.tables.model,
        "tower": plan.tables.tower,
        "precision": None if plan.config.from_embeddings else _precision(plan.config, shares) if shares else plan.config.precision,
        "date": config["date"],
        "started_at": plan.started_at.isoformat(timespec="seconds"),
        "finished_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "input": config["input"],
        "schemes": {scheme.name: scheme.kind for scheme in plan.tables.schemes},
        "counts": {"listed": listed, "known": known, **counts},
        "files": [file["file"] for file in files],
        "timings": {name: value and round(value, 3) for name, value in timings.items()},
        "tuning": tuning,
        "config": config,
    }


def _stopped(run_id: str, error: Exception) -> RunError:
    """The error that ends a run, with what is at its bottom: Ray wraps what workers raise, more than once."""
    cause: BaseException = error
    while isinstance(cause, RayTaskError) or not isinstance(cause, KNOWN):  # the first is of both kinds, and its text a traceback
        inner = cause.cause if isinstance(cause, RayTaskError) else cause.__cause__
        if inner is None:
            break
        cause = inner
    if not isinstance(cause, KNOWN):
        logger.error("run %s stopped at an error that was not foreseen", run_id, exc_info=error)
    what = str(cause) if isinstance(cause, KNOWN) else f"{type(cause).__name__}: {cause}"
    return RunError(f"run {run_id} stopped: {one_line(what)}. What is written stays; the same command with --run-id {run_id} goes on")


def _precision(config: AnnotateConfig, shares: Shares) -> str:
    """The image tower's: what auto comes to."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if shares.device == "cuda" else "fp32"


def _reposts(plan: Plan, shares: Shares) -> Reposts:
    """Knows whose each image's bytes are, also of the blocks that are done and, unless all is to be annotated anew, of earlier nights."""
    config = plan.config
    if config.from_embeddings:
        return Reposts()  # it costs more to ask than to annotate it
    days = 0 if config.reannotate else config.reuse_days
    return Reposts.open(
        Past(
            output=config.output,
            options=config.storage_options,
            folder=plan.rows_folder,
            done=tuple(sorted(set(range(plan.manifest.blocks)) - set(plan.todo))),
            tables=plan.tables,
            precision=_precision(config, shares),
            tower_weights=config.public()["tower_weights"],
            since=plan.started_at - dt.timedelta(days=days) if days else None,
        )
    )


def operators(plan: Plan, shares: Shares, board: Board, reposts: Reposts) -> tuple[Loader, AnnotatorSettings, BlockWriter]:
    """A run's three operators; of the annotator, what an actor makes it of."""
    config = plan.config
    limits = Limits.of(config, plan.tables.crop_size)
    loader = Loader(config.output, config.storage_options, plan.manifest, Fetcher.of(config), plan.tables, limits, board, reposts)
    settings = AnnotatorSettings(
        model=config.model,
        options=config.storage_options,
        tower_weights=config.tower_weights,
        schemes=tuple(scheme.name for scheme in plan.tables.schemes),
        tables=plan.tables,
        run_id=config.run_id,
        device=shares.device,
        precision=config.precision,
        threads=shares.threads,
        batch_size=config.batch_size,
        board=board,
    )
    return loader, settings, BlockWriter(config.output, plan.rows_folder, config.storage_options, plan.tables, board)


def graph(plan: Plan, shares: Shares, board: Board, reposts: Reposts) -> Dataset:
    """The three operators over the blocks that are left; two, from embeddings. A row of the result is a block that was written."""
    loader, settings, writer = operators(plan, shares, board, reposts)
    whole: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
    # From items rather than a read: a read is a task of one CPU, which a cluster of one CPU can't fit beside the actor.
    numbers = ray.data.from_items([{"block": number} for number in plan.todo], override_num_blocks=len(plan.todo))
    # `map_batches` refuses GPUs without a batch size. A block is one batch, whatever its rows are, and the annotator has sizes of its own.
    in_actors: dict[str, Any] = {
        "compute": ActorPoolStrategy(
            min_size=shares.least_actors, max_size=shares.actors, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True
        ),
        "num_cpus": shares.actor_cpus,
        "num_gpus": shares.actor_gpus,
        **whole,
    }
    if plan.config.from_embeddings:
        arguments = (settings, plan.config.input, plan.config.output, plan.manifest)
        annotated = numbers.map_batches_internal(Reannotator, fn_constructor_args=arguments, **in_actors)
    else:
        loaded = numbers.map_batches(loader, compute=TaskPoolStrategy(size=shares.loaders), num_cpus=shares.load, **whole)
        annotated = loaded.map_batches_internal(Annotator, fn_constructor_args=(settings,), **in_actors)
    return annotated.map_batches(writer, num_cpus=shares.write, **whole)


def _work(plan: Plan, shares: Shares, reposts: Reposts) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Does the blocks that are left. Returns the seconds all workers together spent in each stage, the rate and how busy they were; and
    the settings found."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # not Ray's, which does not say what it was
    context.target_max_block_size = None  # a block of ours stays one of Ray's
    # What is loaded and not annotated is lost with its node or the driver: no more of it than keeps everyone busy.
    waiting = 2 * shares.loaders + 4 * shares.actors
    block_bytes = plan.manifest.block_rows * plan.tables.crop_bytes
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=waiting * block_bytes)
    board = Board.put_up()
    seconds: Counter[str] = Counter()
    since_first: Counter[str] = Counter()
    tuning: dict[str, Any] = shares.public()
    done = plan.manifest.rows - sum(map(plan.manifest.rows_of, plan.todo))
    with Progress(plan.manifest.rows, done) as progress, Metrics(plan, shares, board, progress) as metrics:
        written = graph(plan, shares, board, reposts).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        for batch in watched(written, plan.config.stall_timeout, board.stuck):
            for row in pa.table(batch).to_pylist():
                took = {stage: row[f"{stage}_seconds"] for stage in STAGES}
                seconds.update(took)
                if progress.first is None:
                    tuning |= board.settings()
                    logger.info(", ".join(f"{name} {value}" for name, value in tuning.items()))
                else:
                    since_first.update(took)
                progress.add(row["rows"], row["ok"])
                metrics.add(row)
    timings: dict[str, float | None] = {f"all_{stage}_seconds": seconds[stage] for stage in STAGES}
    timings |= {"first_block_seconds": progress.first_block_seconds, "images_per_second": progress.rate}
    if progress.rate:
        had = progress.seconds_since_first
        timings["annotators_busy"] = min(1.0, since_first["annotate"] / (had * shares.actors))
        if not plan.config.from_embeddings:  # which has none
            timings["loaders_busy"] = min(1.0, (since_first["fetch"] + since_first["decode"]) / (had * shares.loaders))
    return timings, tuning


def _gather(plan: Plan, shares: Shares) -> list[dict[str, Any]]:
    """Verifies the blocks and makes the table's files of them, a task each.

    A block whose reposts have no row any more that they could be copied from is done again, with all of its images. Another's may lack
    one of its rows then, since an image can't be read as it was; no block does twice.
    """
    name = f"annotations/dt={plan.config.date.isoformat()}/part-{plan.config.run_id}-{plan.attempt}"
    groups = merge.groups(plan.fs, plan.rows_folder, plan.manifest)
    files: dict[str, dict[str, Any]] = {}
    todo = {f"{name}-{i:05d}.parquet": group for i, group in enumerate(groups)}
    for times_left in reversed(range(1 + TIMES_AGAIN)):
        files |= _files(plan, shares, todo)
        again = sorted({number for file in files.values() for number in file.get("again", ())})
        if not again or not times_left:
            break
        todo = {target: todo[target] for target, file in files.items() if "again" in file}
        logger.info("%d blocks hold images that were posted before, but not what was said of them: they are done again", len(again))
        _work(replace(plan, todo=tuple(again)), shares, Reposts())
    if again:
        raise VerificationError(f"{len(again)} blocks hold images whose rows can't be copied from any other, the first {again[0]}")
    return [files[target] for target in sorted(files)]


def _files(plan: Plan, shares: Shares, todo: dict[str, list[int]]) -> dict[str, dict[str, Any]]:
    """What the gatherer says of each file. So many are made at once as there are pairs of CPUs, since each takes some 0.4 GB of memory;
    none on a node without CPUs, as heads are that are kept free of work."""
    gatherer = merge.Gatherer(plan.config.output, plan.rows_folder, plan.config.storage_options, plan.manifest, plan.tables)
    task: Any = ray.remote(num_cpus=shares.write, scheduling_strategy="SPREAD")(lambda target, numbers: gatherer(target, numbers))
    most = max(1, int(ray.cluster_resources().get("CPU", 0) // 2))
    made: dict[str, dict[str, Any]] = {}
    running: dict[Any, str] = {}
    for target, numbers in todo.items():
        running[task.remote(target, numbers)] = target
        if len(running) == most:
            made |= _next(running)
    while running:
        made |= _next(running)
    return made


def _next(running: dict[Any, str]) -> dict[str, dict[str, Any]]:
    (done,), _ = ray.wait(list(running))
    return {running.pop(done): ray.get(done)}
