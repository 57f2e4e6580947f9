"""Plans a run before any cluster work begins: checks model, input and output, and writes the manifest. User errors end here."""

import datetime as dt
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import chain
from typing import Any

import numpy as np
import pydantic

from pipeline.config import AnnotateConfig
from pipeline.errors import TRANSIENT, UserError
from pipeline.inputs.embeddings import embedded_items
from pipeline.inputs.file_listing import left_out_text
from pipeline.inputs.manifest import Manifest, plan_path, saved_manifest, write_manifest
from pipeline.inputs.source import list_items
from pipeline.logs import set_run_id
from pipeline.stages.merge import GROUP_ROWS
from pipeline.stages.model_files import check_tower, local_folder, local_tower
from pipeline.stages.write import done_blocks, rows_folder
from pipeline.table import delta, orphans
from pipeline.table.image_ids import image_ids
from pipeline.table.output_folder import WORK, OutputFolder, record_path, work_folder
from pipeline.table.run_record import RunRecord, past_runs, read_record
from pipeline.table.schema import Tables
from ugrie.model import checkpoint
from ugrie.schemes.scheme import SchemeError
from ugrie.schemes.template import TemplateError

logger = logging.getLogger(__name__)
SAME = ("input", "model", "schemes", "column", "limit", "reannotate", "retry_failed", "keep_embeddings", "from_embeddings")


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start or to resume. `todo` are the numbers of the blocks that have no rows yet.

    `attempt` is in the names of this driver's files: another driver of the same run, dead or alive, has other names.
    """

    config: AnnotateConfig
    output: OutputFolder
    tables: Tables
    manifest: Manifest
    started_at: dt.datetime
    todo: tuple[int, ...]
    seconds: float  # that planning took
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
    tables = tables_of(config)
    delta.check(config, tables)
    output = OutputFolder(config.output, config.storage_options)
    asked = {
        "input": config.public()["input"],
        "model": tables.model,
        "schemes": [scheme.name for scheme in tables.schemes],
        **{key: getattr(config, key) for key in ("column", "limit", "reannotate", "retry_failed", "from_embeddings", "keep_embeddings")},
        "precision": config.precision,
    }
    if config.resume and "run_id" not in config.model_fields_set:
        config = config.model_copy(update={"run_id": _unfinished(output, asked) or config.run_id})
    set_run_id(config.run_id)
    saved = output.read_json(plan_path(config.run_id)) or _begin(config, output, asked, tables)
    _check_same(config.run_id, saved["asked"], asked)
    manifest = saved_manifest(config.run_id, saved)
    done = done_blocks(output, rows_folder(config.run_id))
    return Plan(
        config=config.model_copy(update={"date": dt.date.fromisoformat(saved["date"])}),
        output=output,
        tables=tables,
        manifest=manifest,
        started_at=dt.datetime.fromisoformat(saved["started_at"]),
        todo=tuple(number for number in range(manifest.blocks) if number not in done),
        seconds=time.perf_counter() - clock,
    )


def _begin(config: AnnotateConfig, output: OutputFolder, asked: dict[str, Any], tables: Tables) -> dict[str, Any]:
    """List the input and save the plan. Two drivers that begin the same run at once both take the plan that was saved first."""
    manifest_name = f"manifest-{uuid.uuid4().hex[:8]}"
    folder = f"{work_folder(config.run_id)}/{manifest_name}"
    block_rows = config.block_rows
    left_out: Counter[str] = Counter()
    if config.from_embeddings:
        source = embedded_items(config.input, tables.tower, config.storage_options)
        block_rows = block_rows or GROUP_ROWS  # a block reads whole row groups
    else:
        source = list_items(config.input, config.column, config.storage_options, left_out, config.output)
    source = chain([next(source)], source)  # a wrong input is found before anything is read of earlier runs
    known = annotated_ids(output, config, asked["model"], asked["schemes"])
    orphans.warn(output, config)
    with output.writable():
        manifest = write_manifest(output, folder, source, block_rows, known, config.limit)
        saved = {
            "asked": asked,
            "started_at": dt.datetime.now(dt.UTC).isoformat(),
            "date": config.date.isoformat(),
            "manifest": manifest_name,
            "rows": manifest.rows,
            "block_rows": manifest.block_rows,
            "listed": manifest.listed,
            "known": manifest.known,
            "left_out": dict(left_out),
        }
        if output.create(plan_path(config.run_id), json.dumps(saved).encode()):
            message = "%d images are listed, of which %d were annotated before and %d are new"
            logger.info(message, manifest.listed, manifest.known, manifest.rows)
            if left_out:
                logger.info("left out of the input: %s", left_out_text(left_out))
            return saved
        if manifest.rows:
            output.remove(folder, recursive=True)
    saved_by_another = output.read_json(plan_path(config.run_id))
    if saved_by_another is None:
        raise UserError(f"another driver finished run {config.run_id} while this one began it: run the same command again")
    return saved_by_another


def annotated_ids(output: OutputFolder, config: AnnotateConfig, model: str, schemes: Sequence[str]) -> np.ndarray:
    """Return the IDs of the images that this model has annotated with every requested scheme in committed runs: int64, sorted."""
    if config.reannotate:
        return np.empty(0, np.int64)
    runs = [
        run
        for run in past_runs(output, model)
        if set(schemes) <= set(run.schemes) and (run.config.get("keep_embeddings") or not config.keep_embeddings)
    ]
    but = TRANSIENT if config.retry_failed else ()
    if delta.is_table(output):
        return image_ids(output, delta.files_of(output, runs), but, [run.run_id for run in runs])
    return image_ids(output, [file for run in runs for file in run.files], but)


def _unfinished(output: OutputFolder, asked: dict[str, Any]) -> str | None:
    """Return the newest run with the same settings that has no record."""
    found = []
    with output.readable():
        run_ids = output.names(WORK)
    for run_id in run_ids:
        saved = output.read_json(plan_path(run_id))
        if saved is not None and saved["asked"] == asked and output.read_json(record_path(run_id)) is None:
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
    if config.precision == "int8" and not model.tower.is_transformer:
        raise UserError(f"precision = int8 is for transformers, and the image tower of {model.name} is none: leave it at auto")
    if config.precision == "int8" and find_spec("onnxruntime") is None:
        raise UserError("precision = int8 needs ONNX Runtime: pip install 'ugrie[int8]', here and on every worker")
    if not config.from_embeddings or config.tower_weights is not None:
        check_tower(model, config.tower_weights, config.storage_options)
    return Tables(
        schemes=template.schemes,
        crop_size=model.tower.crop_size,
        embedding_dim=model.tower.embedding_dim if config.keep_embeddings else None,
        model=f"{model.name}@{checkpoint.digest(folder)}",
        tower=checkpoint.tower_digest(folder, model, local_tower(config.tower_weights, config.storage_options)),
    )


def _check_same(run_id: str, before: dict[str, Any], asked: dict[str, Any]) -> None:
    for key, value in asked.items():
        if (then := before.get(key, value)) != value:  # a plan of an earlier version lacks newer settings
            raise UserError(f"run {run_id} was begun with {key} = {then}, not {value}: give that again, or another --run-id")
