"""What a run will do, settled before any cluster work begins: model, input, output, manifest. User errors end here."""

import datetime as dt
import json
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import chain
from typing import Any

import fsspec
import numpy as np
import pydantic

from pipeline.config import AnnotateConfig
from pipeline.errors import PASSING, UserError
from pipeline.inputs.embeddings import embedded_items
from pipeline.inputs.manifest import Manifest, write_manifest
from pipeline.inputs.source import items
from pipeline.logs import name_run
from pipeline.stages import write
from pipeline.stages.merge import GROUP_ROWS
from pipeline.stages.model_files import check_tower, local_folder, local_tower
from pipeline.storage.files import create_atomic, listed, read
from pipeline.storage.filesystem import connect
from pipeline.table import delta, orphans
from pipeline.table.run_record import image_ids, past_runs
from pipeline.table.schema import Tables
from ugrie.model import checkpoint
from ugrie.schemes.scheme import SchemeError
from ugrie.schemes.template import TemplateError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start or to go on. `todo` are the blocks that have no rows yet.

    `attempt` names this driver's files: another one of the same run, whether it died or is at work now, has other names.
    """

    config: AnnotateConfig
    fs: fsspec.AbstractFileSystem
    root: str
    work: str
    tables: Tables
    manifest: Manifest
    started_at: dt.datetime
    todo: tuple[int, ...]
    seconds: float  # that planning took
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def rows_folder(self) -> str:
        return f"{self.work}/rows"


def committed(config: AnnotateConfig) -> dict[str, Any] | None:
    """The record of the run, if it is done already. Raises UserError if it was asked for something else."""
    fs, root = connect(config.output, config.storage_options)
    record = _read_json(fs, f"{root.rstrip('/')}/runs/{config.run_id}.json")
    if record is not None:
        settings = config.public()
        keys = ("input", "model", "schemes", "column", "limit", "reannotate", "retry_failed", "keep_embeddings", "from_embeddings")
        _check_same(config.run_id, record["config"], {key: settings[key] for key in keys})
    return record


def prepare(config: AnnotateConfig) -> Plan:
    """Checks everything a user may have got wrong, and writes the manifest. Raises UserError.

    A run of the same id that died is found by what it left, and goes on; it must be asked for the same thing.
    """
    clock = time.perf_counter()
    tables = tables_of(config)
    delta.check(config, tables)
    fs, root = connect(config.output, config.storage_options)
    root = root.rstrip("/")
    asked = {
        "input": config.public()["input"],
        "model": tables.model,
        "schemes": [scheme.name for scheme in tables.schemes],
        **{key: getattr(config, key) for key in ("column", "limit", "reannotate", "retry_failed", "from_embeddings", "keep_embeddings")},
        "precision": config.precision,
    }
    if config.resume and "run_id" not in config.model_fields_set:
        config = config.model_copy(update={"run_id": _unfinished(fs, root, asked) or config.run_id})
    name_run(config.run_id)
    work = f"{root}/_work/{config.run_id}"
    settled = _read_json(fs, f"{work}/plan.json") or _begin(config, fs, root, asked, tables)
    _check_same(config.run_id, settled["asked"], asked)
    sizes = {name: settled[name] for name in ("rows", "block_rows", "listed", "known")}
    manifest = Manifest(f"{work}/{settled['manifest']}", **sizes)
    done = write.done(fs, f"{work}/rows")
    return Plan(
        config=config.model_copy(update={"date": dt.date.fromisoformat(settled["date"])}),
        fs=fs,
        root=root,
        work=work,
        tables=tables,
        manifest=manifest,
        started_at=dt.datetime.fromisoformat(settled["started_at"]),
        todo=tuple(number for number in range(manifest.blocks) if number not in done),
        seconds=time.perf_counter() - clock,
    )


def _begin(config: AnnotateConfig, fs: fsspec.AbstractFileSystem, root: str, asked: dict[str, Any], tables: Tables) -> dict[str, Any]:
    """Lists the input and settles what the run is. Two drivers that begin the same run at once settle on one's list."""
    name = f"manifest-{uuid.uuid4().hex[:8]}"
    work = f"{root}/_work/{config.run_id}"
    block_rows = config.block_rows
    if config.from_embeddings:
        source = embedded_items(config.input, tables.tower, config.storage_options)
        block_rows = block_rows or GROUP_ROWS  # a block reads whole groups of rows
    else:
        source = items(config.input, config.column, config.storage_options)
    source = chain([next(source)], source)  # an input that is wrong is found before anything is read of earlier runs
    known = annotated(fs, root, config, asked["model"], asked["schemes"])
    orphans.warn(fs, root, config)
    try:
        manifest = write_manifest(fs, f"{work}/{name}", source, block_rows, known, config.limit)
        settled = {
            "asked": asked,
            "started_at": dt.datetime.now(dt.UTC).isoformat(),
            "date": config.date.isoformat(),
            "manifest": name,
            "rows": manifest.rows,
            "block_rows": manifest.block_rows,
            "listed": manifest.listed,
            "known": manifest.known,
        }
        if create_atomic(fs, f"{work}/plan.json", json.dumps(settled).encode()):
            said = "%d images are listed, of which %d were annotated before and %d are new"
            logger.info(said, manifest.listed, manifest.known, manifest.rows)
            return settled
        if manifest.rows:
            fs.rm(f"{work}/{name}", recursive=True)
    except OSError as error:
        raise UserError(f"{config.output} can't be written: {error or type(error).__name__}; check the path and the credentials") from None
    settled_by_another = _read_json(fs, f"{work}/plan.json")
    if settled_by_another is None:
        raise UserError(f"run {config.run_id} was ended by another driver while this one began it: give the same command again")
    return settled_by_another


def annotated(fs: fsspec.AbstractFileSystem, root: str, config: AnnotateConfig, model: str, schemes: Sequence[str]) -> np.ndarray:
    """The ids of the images of which there is all that is asked for, by the same model, in committed runs: int64, sorted."""
    if config.reannotate:
        return np.empty(0, np.int64)
    runs = [
        run
        for run in past_runs(fs, root, model)
        if set(schemes) <= set(run["schemes"]) and (run["config"].get("keep_embeddings") or not config.keep_embeddings)
    ]
    but = PASSING if config.retry_failed else ()
    if delta.is_table(fs, root):
        files = delta.files_of(config.output, config.storage_options, runs)
        return image_ids(fs, root, files, but, [run["run_id"] for run in runs])
    return image_ids(fs, root, [file for run in runs for file in run["files"]], but)


def _unfinished(fs: fsspec.AbstractFileSystem, root: str, asked: dict[str, Any]) -> str | None:
    """The newest run that was asked for the same and has no record."""
    found = []
    works = listed(fs, root, lambda: fs.ls(f"{root}/_work", detail=False) if fs.exists(f"{root}/_work") else [])
    for run_id in (work.rstrip("/").rpartition("/")[2] for work in works):
        settled = _read_json(fs, f"{root}/_work/{run_id}/plan.json")
        if settled is not None and settled["asked"] == asked and _read_json(fs, f"{root}/runs/{run_id}.json") is None:
            found.append((settled["started_at"], run_id))
    if not found:
        logger.info("no run that was asked for the same is unfinished: beginning one")
        return None
    logger.info("going on with run %s", max(found)[1])
    return max(found)[1]


def tables_of(config: AnnotateConfig) -> Tables:
    """The schemas of what a run writes. Raises UserError where the model, its schemes, its tower or the precision can't be."""
    folder = local_folder(config.model, config.storage_options)
    try:
        model = checkpoint.read_config(folder)
        template = model.template(config.schemes)
    except (checkpoint.CheckpointError, SchemeError) as error:
        raise UserError(str(error)) from None
    except TemplateError as error:
        raise UserError(f"schemes = {', '.join(config.schemes or ()) or 'none'}: {error}; all are annotated where none are named") from None
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
        if (then := before.get(key, value)) != value:  # a setting that came later is not there
            raise UserError(f"run {run_id} was begun with {key} = {then}, not {value}: give that again, or another --run-id")


def _read_json(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any] | None:
    try:
        return json.loads(read(fs, path))
    except FileNotFoundError:
        return None
    except Exception as error:  # storage clients raise kinds of their own
        raise UserError(f"the output can't be read: {error or type(error).__name__}; check the path and the credentials") from None
