"""Plans a run before any cluster work begins: checks model, input and output, and writes the manifest. User errors end here."""

import datetime as dt
import json
import logging
import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic

from pipeline.config import AnnotateConfig, check_precision
from pipeline.errors import UserError
from pipeline.inputs.file_listing import left_out_text
from pipeline.inputs.manifest import Manifest, plan_path, saved_manifest
from pipeline.logs import set_run_id
from pipeline.run.begin import Begun
from pipeline.run.earlier import images_of
from pipeline.stages.merge import NO_BLOCKS
from pipeline.stages.model_files import local_folder, tower_file
from pipeline.stages.write import block_sizes, file_name, rows_folder
from pipeline.storage.parallel import parallel_map
from pipeline.table.kept_columns import Keep, check_names
from pipeline.table.output_folder import WORK, OutputFolder, record_path, work_folder
from pipeline.table.run_record import RunRecord, past_runs, read_record
from pipeline.table.schema import RESERVED, SCHEMA_VERSION, Tables
from pipeline.table.suppressed import NOTHING, RunLists, Suppressed, read_list, save
from pipeline.table_formats import table_format
from ugrie.model import checkpoint, zero_shot
from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.scheme import Scheme, SchemeError
from ugrie.schemes.template import TemplateError
from ugrie.vision.config import check_weights

logger = logging.getLogger(__name__)
THREADS = 16  # which wait for storage, most of the time
SAME = ("input", "model", "schemes", "column", "keep_columns", "limit", "reannotate", "retry_days", "keep_embeddings", "from_embeddings")


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start or to resume. `todo` are the numbers of the blocks that have no rows yet and need some: int64.

    `before` are the IDs of the runs that were committed before the manifest was written. `lists` name images that get no row.
    `attempt` is in the names of this driver's files: another driver of the same run, dead or alive, has other names.
    """

    config: AnnotateConfig
    output: OutputFolder
    tables: Tables
    manifest: Manifest
    started_at: dt.datetime
    before: frozenset[str]
    todo: np.ndarray
    seconds: float  # that planning took
    lists: RunLists = field(default_factory=RunLists)
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def rows_folder(self) -> str:
        """The folder of the blocks' rows within the output."""
        return rows_folder(self.config.run_id)


def find_committed(config: AnnotateConfig) -> RunRecord | None:
    """Return the record of the run if it is committed. Raises UserError if it was begun with other settings."""
    output = OutputFolder(config.output, config.storage_options)
    with output.readable():
        try:
            record = read_record(output, record_path(config.run_id))
        except FileNotFoundError:
            return None
    settings = config.public()
    _check_same(config.run_id, record.config, {key: settings[key] for key in SAME})
    return record


def prepare(config: AnnotateConfig) -> Plan:
    """Check everything that a user may have got wrong, and write the manifest. Raises UserError.

    A run of the same ID that died is found by its work folder, and resumed; its settings must be the same.
    """
    clock = time.perf_counter()
    given = config.suppress and read_list(config.suppress, config.storage_options)
    tables = tables_of(config)
    table_format.check(config, tables)
    output = OutputFolder(config.output, config.storage_options)
    asked = {
        "input": config.public()["input"],
        "model": tables.model,
        "tower": tables.tower,
        "schemes": [scheme.name for scheme in tables.schemes],
        "zero_shot": tables.zero_shot_digests,
        **{key: getattr(config, key) for key in ("column", "limit", "reannotate", "retry_days", "from_embeddings", "keep_embeddings")},
        "keep_columns": list(config.keep_columns),
        "precision": config.precision,
    }
    if config.resume and "run_id" not in config.model_fields_set:
        config = config.model_copy(update={"run_id": _unfinished(output, asked, config.date) or config.run_id})
    set_run_id(config.run_id)
    begun_before = output.read_json(plan_path(config.run_id))
    saved = begun_before or _begin(config, output, asked, tables, given[1] if given else NOTHING)
    if _version(saved) != SCHEMA_VERSION:
        raise UserError(f"run {config.run_id} was begun by another version of UGRIE, whose image IDs are others: give another --run-id")
    _check_same(config.run_id, saved["asked"], asked)
    manifest = saved_manifest(config.run_id, saved)
    with output.writable():
        if given:
            save(output, config.run_id, f"list-{given[0].sha256[:16]}", *given)
    plan = Plan(
        config=config.model_copy(update={"date": dt.date.fromisoformat(saved["date"])}),
        output=output,
        tables=replace(tables, kept=_kept(saved)),
        manifest=manifest,
        started_at=dt.datetime.fromisoformat(saved["started_at"]),
        before=frozenset(saved["before"]),
        todo=NO_BLOCKS,
        seconds=0.0,
        lists=RunLists().now(output, config.run_id),
    )
    left = block_sizes(output, plan.rows_folder, manifest.blocks) < 0
    if begun_before:
        left[manifest.blocks_within(output, overtaken_ids(plan))] = False
    return replace(plan, todo=np.flatnonzero(left), seconds=time.perf_counter() - clock)


def _begin(config: AnnotateConfig, output: OutputFolder, asked: dict[str, Any], tables: Tables, suppressed: Suppressed) -> dict[str, Any]:
    """List the input and save the plan. Two drivers that begin the same run at once both take the plan that was saved first."""
    manifest_name = f"manifest-{uuid.uuid4().hex[:8]}"
    begun = Begun(config, output, tables, suppressed, f"{work_folder(config.run_id)}/{manifest_name}")
    manifest, kept = begun.write_manifest()
    saved = {
        "schema_version": SCHEMA_VERSION,
        "asked": asked,
        "started_at": begun.started_at.isoformat(),
        "before": [run.run_id for run in begun.runs],
        "date": config.date.isoformat(),
        "manifest": manifest_name,
        "rows": manifest.rows,
        "block_rows": manifest.block_rows,
        "listed": manifest.listed,
        "known": manifest.known,
        "suppressed": manifest.suppressed,
        "retried": manifest.retried,
        "left_out": manifest.left_out,
        "kept": b64encode(kept.serialize()).decode() if kept is not None else None,
    }
    with output.writable():
        if output.create(plan_path(config.run_id), json.dumps(saved).encode()):
            retried = f", {manifest.retried} failed before and are retried" if manifest.retried else ""
            on_list = f", {manifest.suppressed} are on the list of --suppress" if config.suppress else ""
            message = "%d %s are listed, of which %d were annotated before%s%s and %d are new"
            rows = "images" if kept is None else "rows"
            logger.info(message, manifest.listed, rows, manifest.known, retried, on_list, manifest.rows - manifest.retried)
            if manifest.left_out:
                logger.info("left out of the input: %s", left_out_text(manifest.left_out))
            return saved
        if manifest.rows:
            output.remove(manifest.folder, recursive=True)
    saved_by_another = output.read_json(plan_path(config.run_id))
    if saved_by_another is None:
        raise UserError(f"another driver finished run {config.run_id} while this one began it: run the same command again")
    return saved_by_another


def _kept(saved: dict[str, Any]) -> pa.Schema | None:
    """Return the columns that a run keeps from its input, as its plan states them."""
    return pa.ipc.read_schema(pa.py_buffer(b64decode(saved["kept"]))) if saved.get("kept") else None


def overtaken_ids(plan: Plan) -> np.ndarray:
    """Return the IDs of images (or rows, as `images_of`) in runs that were committed since the plan's manifest: int64, sorted."""
    runs = past_runs(plan.output, plan.tables.model, plan.before | {plan.config.run_id})
    return images_of(plan.output, plan.config, plan.tables, runs, plan.started_at).annotated


def too_many_failed(plan: Plan, blocks: Collection[int]) -> None:
    """Note that a run may not be committed because too many images failed, and remove the blocks with failures that may pass.

    Resuming does those blocks again. From the next date on `resume` begins another run, with a listing of its own.
    """

    def remove(number: int) -> None:
        with suppress(FileNotFoundError):  # another driver of the run was first
            plan.output.remove(f"{plan.rows_folder}/{file_name(number)}")

    plan.output.write(_note_path(plan.config.run_id), b"")
    for _ in parallel_map(remove, blocks, THREADS):
        pass


def _note_path(run_id: str) -> str:
    return f"{work_folder(run_id)}/too_many_failed"


def _unfinished(output: OutputFolder, asked: dict[str, Any], date: dt.date) -> str | None:
    """Return the newest run with the same settings that has no record. One of which too many images failed is left on its own date."""
    found = []
    with output.readable():
        run_ids = output.names(WORK)
    for run_id in run_ids:
        saved = output.read_json(plan_path(run_id))
        if (
            saved is None
            or _version(saved) != SCHEMA_VERSION
            or _differences(saved["asked"], asked)
            or output.read_json(record_path(run_id)) is not None
        ):
            continue
        if saved["date"] != date.isoformat() and output.exists(_note_path(run_id)):
            logger.info("run %s is not resumed: too many of its images failed; they are new to the next run", run_id)
            continue
        found.append((saved["started_at"], run_id))
    if not found:
        logger.info("no unfinished run has these settings: beginning a new one")
        return None
    logger.info("resuming run %s", max(found)[1])
    return max(found)[1]


def tables_of(config: AnnotateConfig) -> Tables:
    """Return the schemas of a run's tables. Raises UserError where the model, its schemes, its tower or the precision is wrong."""
    folder = local_folder(config.model, config.storage_options)
    try:
        model = checkpoint.read_config(folder)
        template = model.template(config.schemes)
    except (checkpoint.CheckpointError, SchemeError) as error:
        raise UserError(str(error)) from None
    except TemplateError as error:
        raise UserError(f"schemes = {', '.join(config.schemes or ()) or 'none'}: {error}; leave it out to annotate all") from None
    except pydantic.ValidationError as error:
        raise UserError(f"{folder}: {error}") from None
    check_precision(config, "cuda" if config.device == "auto" and config.gpus else config.device)
    if config.precision == "int8" and not model.tower.is_transformer:
        raise UserError(f"precision = int8 is for transformers, and the image tower of {model.name} is none: leave it at auto")
    if config.precision == "int8" and find_spec("onnxruntime") is None:
        raise UserError("precision = int8 needs ONNX Runtime: pip install 'ugrie[int8]', here and on every worker")
    # Embeddings need no tower, and their runs state its digest: its file is needed only where the model doesn't state the same.
    stated = config.from_embeddings and config.tower_weights is None and model.tower.sha256 is not None
    weights = None if stated else tower_file(model, config.tower_weights, config.storage_options)
    try:
        tower = checkpoint.tower_digest(folder, model, weights)
    except checkpoint.CheckpointError as error:
        raise UserError(str(error)) from None
    for scheme in template.schemes:
        if scheme.name in RESERVED:
            raise UserError(f"scheme {scheme.name}: the table has a column of that name: rename the scheme and its file")
    tables = Tables(
        schemes=template.schemes,
        crop_size=model.tower.crop_size,
        embedding_dim=model.tower.embedding_dim if config.keep_embeddings else None,
        wide_embeddings=config.table_format != "parquet",
        model=f"{model.name}@{checkpoint.digest(folder)}",
        tower=tower,
    )
    for scheme in tables.schemes:
        if tables.annotated.names.count(scheme.name) > 1:
            raise UserError(f"scheme {scheme.name}: the table has a column of that name: rename the scheme and its file")
    check_names(Keep(config.keep_columns), tables)
    return replace(tables, zero_shot=_zero_shot(config, folder, model, tower, weights, template.schemes))


def _zero_shot(
    config: AnnotateConfig, folder: Path, model: checkpoint.Config, tower: str, weights: str | None, schemes: Sequence[Scheme]
) -> dict[str, ZeroShot]:
    """Return what answers the schemes that the model was not trained for. Raises UserError where its CLIP's weights can't be had.

    It is prepared here, once, for all workers: so every row is answered in the same way, also when the run is resumed.
    """
    untrained = [scheme for scheme in schemes if not model.was_trained_for(scheme)]
    if not untrained:
        return {}

    def checked_weights() -> str:
        if weights is not None:
            return weights
        file = str(tower_file(model, config.tower_weights, config.storage_options))
        check_weights(model.tower, file)  # `tower` is only what the model states
        return file

    try:
        return zero_shot.answer(
            model.tower,
            tower,
            checkpoint.mean_embedding(folder),
            untrained,
            checked_weights,
        )
    except (ValueError, OSError) as error:
        names = ", ".join(scheme.name for scheme in untrained)
        raise UserError(f"{model.name} was not trained for {names}, and can't answer zero-shot: {error}") from None


def _version(saved: dict[str, Any]) -> int:
    """Return the schema version of a saved plan; version 1 did not state it."""
    return saved.get("schema_version", 1)


def _differences(before: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Return the settings that differ from those that a run was begun with. A plan of an earlier version lacks newer settings."""
    return [key for key, value in asked.items() if before.get(key, [] if key == "keep_columns" else value) != value]


def _check_same(run_id: str, before: dict[str, Any], asked: dict[str, Any]) -> None:
    for key in _differences(before, asked):
        begun = before.get(key, [])
        raise UserError(f"run {run_id} was begun with {key} = {begun}, not {asked[key]}: give that again, or another --run-id")
