"""Runs an annotation job in the driver: plan, execute, commit, and then the report and the table of another format."""

import datetime as dt
import logging
from typing import TYPE_CHECKING

from ray.exceptions import RayError, RayTaskError

from pipeline.config import AnnotateConfig
from pipeline.errors import RunError, StorageError, UserError
from pipeline.images.decode import identity
from pipeline.logs import set_run_id
from pipeline.run import local_ray
from pipeline.run.metrics import record_success
from pipeline.run.plan import Plan, find_committed, prepare
from pipeline.run.resources import check_address
from pipeline.run.watchdog import StalledError
from pipeline.stages.merge import VerificationError
from pipeline.stages.model_files import pinned
from pipeline.table.commit import commit, tidy
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import Counts, RunRecord
from pipeline.table.stats import FailuresError
from pipeline.table_formats import table_format
from ugrie.text import one_line

if TYPE_CHECKING:
    from pipeline.run.execute import RunResult

logger = logging.getLogger(__name__)
FORESEEN = (StorageError, StalledError, VerificationError, FailuresError)


def annotate(config: AnnotateConfig) -> RunRecord:
    """Annotate the input's images and commit the run. Return its record (docs/tables.md).

    A run that is committed already is not repeated; its record is returned. Raises UserError before any cluster work begins, and
    RunError where the run stops later; the same command resumes it.
    """
    config = _with_pinned_model(config)
    output = OutputFolder(config.output, config.storage_options)
    record = find_committed(config)
    if record is not None:
        set_run_id(config.run_id)
        logger.info("run %s was committed at %s: nothing to do", config.run_id, record.finished_at.isoformat())
    else:
        check_address()  # before the input is listed, which may take minutes
        try:
            plan = prepare(config)
        except UserError:
            raise
        except Exception as error:  # the storage's, or Ray's where the cluster plans
            raise _stopped(config.run_id, error) from error
        if plan.manifest.rows:
            local_ray.start()  # while Ray Data and the report are imported
        record = _execute_and_commit(plan)
        record_success(record)
    from pipeline.report import page  # it takes a second, and a run that stops needs none

    page.write_beside(config, output, record)  # before `tidy`: the manifest still says where the images are
    tidy(output, record)
    try:
        table_format.add(output, config)
    except (StorageError, UserError) as error:
        remedy = f"the same command with --run-id {record.run_id} adds it, or the next run"
        table = config.table_format.capitalize()
        raise RunError(f"run {record.run_id} is committed, but not in the {table} table yet: {error}; {remedy}") from error
    return record


def _with_pinned_model(config: AnnotateConfig) -> AnnotateConfig:
    """Return the settings with a repository's revision resolved to its commit, for all workers and the record. Raises UserError."""
    model = pinned(config.model)
    if model == config.model:
        return config
    logger.info("the model %s is %s", config.model, model)
    return config.model_copy(update={"model": model})


def record_of(plan: Plan, result: "RunResult") -> RunRecord:
    """Return the record of a run that is executed and not committed yet."""
    config = plan.config.public()
    return RunRecord(
        run_id=plan.config.run_id,
        model=plan.tables.model,
        tower=plan.tables.tower,
        precision=result.precision,
        decoder=None if plan.config.from_embeddings else identity(plan.config),
        date=plan.config.date,
        started_at=plan.started_at,
        finished_at=dt.datetime.now(dt.UTC),
        input=config["input"],
        schemes={scheme.name: scheme.kind for scheme in plan.tables.schemes},
        zero_shot=plan.tables.zero_shot_digests,
        suppressed=result.lists.about,
        counts=Counts(
            listed=plan.manifest.listed,
            known=plan.manifest.known,
            left_out=plan.manifest.left_out,
            **result.counts | {"suppressed": plan.manifest.suppressed + result.counts.get("suppressed", 0)},
        ),
        files=result.files,
        timings={name: seconds and round(seconds, 3) for name, seconds in {"plan_seconds": plan.seconds, **result.timings}.items()},
        tuning=result.tuning,
        config=config,
    )


def _execute_and_commit(plan: Plan) -> RunRecord:
    """Execute what is left of a run and commit it. Return its record, or another driver's if that committed first."""
    from pipeline.run.execute import execute  # Ray Data takes seconds

    run_id = plan.config.run_id
    if len(plan.todo) < plan.manifest.blocks:
        logger.info("resuming run %s: %d of %d blocks are left", run_id, len(plan.todo), plan.manifest.blocks)
    try:
        return commit(plan.output, record_of(plan, execute(plan)))
    except (KeyboardInterrupt, SystemExit):
        logger.warning("run %s was told to stop: the same command with --run-id %s resumes it", run_id, run_id)
        raise
    except UserError:
        raise
    except Exception as error:
        if (record := find_committed(plan.config)) is not None:  # its driver has removed the blocks that this one worked on
            logger.info("run %s was committed by another driver", run_id)
            return record
        raise _stopped(run_id, error) from error


def _stopped(run_id: str, error: Exception) -> RunError:
    """Return the error that ends a run, with its root cause: Ray wraps what workers raise, more than once."""
    from ray.data.exceptions import SystemException

    cause: BaseException = error
    # A RayTaskError may also be of a foreseen class, but its text is a traceback. Ray Data's SystemException has no text.
    while isinstance(cause, RayTaskError) or not isinstance(cause, FORESEEN):
        inner = cause.cause if isinstance(cause, RayTaskError) else cause.__cause__
        if inner is None or isinstance(inner, SystemException):
            break
        cause = inner
    if not isinstance(cause, FORESEEN):
        logger.error("run %s stopped at an unforeseen error", run_id, exc_info=error)
    lines = str(cause).strip().splitlines() or [""]
    reason = lines[-1] if isinstance(cause, RayError) else str(cause)  # the lines before are a worker's traceback
    problem = lines[0] if isinstance(cause, FORESEEN) else f"{type(cause).__name__}: {reason}"  # after the first come Ray Data's hints
    return RunError(f"run {run_id} stopped: {one_line(problem)}. What is written stays; the same command with --run-id {run_id} resumes it")
