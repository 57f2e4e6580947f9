"""What a run will do, settled before any cluster work begins: model, input, output, manifest. User errors end here."""

import datetime as dt
import json
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any

import fsspec
import pydantic

from pipeline import blocks
from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.manifest import Manifest, write_manifest
from pipeline.source import items
from pipeline.storage import connect, write_atomic
from pipeline.table import Tables
from pipeline.weights import check_tower, local_folder
from ugrie import checkpoint
from ugrie.schemes import SchemeError
from ugrie.template import TemplateError


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start or to go on. `todo` are the blocks that have no rows yet."""

    config: AnnotateConfig
    fs: fsspec.AbstractFileSystem
    root: str
    work: str
    tables: Tables
    manifest: Manifest
    started_at: dt.datetime
    todo: tuple[int, ...]

    @property
    def rows_folder(self) -> str:
        return f"{self.work}/rows"


def committed(config: AnnotateConfig) -> dict[str, Any] | None:
    """The record of the run, if it is done already. Raises UserError if it was asked for something else."""
    fs, root = connect(config.output, config.storage_options)
    record = _read_json(fs, f"{root.rstrip('/')}/runs/{config.run_id}.json")
    if record is not None:
        settings = config.public()
        keys = ("input", "model", "schemes", "column", "limit", "keep_embeddings")
        _check_same(config.run_id, record["config"], {key: settings[key] for key in keys})
    return record


def prepare(config: AnnotateConfig) -> Plan:
    """Checks everything a user may have got wrong, and writes the manifest. Raises UserError.

    A run of the same id that died is found by what it left, and goes on; it must be asked for the same thing.
    """
    tables = _tables(config)
    fs, root = connect(config.output, config.storage_options)
    root = root.rstrip("/")
    work = f"{root}/_work/{config.run_id}"
    asked = {
        "input": config.public()["input"],
        "model": tables.model,
        "schemes": [scheme.name for scheme in tables.schemes],
        "column": config.column,
        "limit": config.limit,
        "keep_embeddings": config.keep_embeddings,
        "precision": config.precision,
    }
    before = _read_json(fs, f"{work}/plan.json")
    if before is None:
        source = islice(items(config.input, config.column, config.storage_options), config.limit)
        try:
            manifest = write_manifest(fs, f"{work}/manifest", source, config.block_rows)
            started = dt.datetime.now(dt.UTC)
            settled = {
                "started_at": started.isoformat(),
                "date": config.date.isoformat(),
                "rows": manifest.rows,
                "block_rows": manifest.block_rows,
            }
            write_atomic(fs, f"{work}/plan.json", json.dumps({"asked": asked, **settled}).encode())
        except OSError as error:
            raise UserError(
                f"{config.output} can't be written: {error or type(error).__name__}; check the path and the credentials"
            ) from None
        before = {"asked": asked, **settled}
    _check_same(config.run_id, before["asked"], asked)
    manifest = Manifest(f"{work}/manifest", before["rows"], before["block_rows"])
    done = blocks.done(fs, f"{work}/rows")
    return Plan(
        config=config.model_copy(update={"date": dt.date.fromisoformat(before["date"])}),
        fs=fs,
        root=root,
        work=work,
        tables=tables,
        manifest=manifest,
        started_at=dt.datetime.fromisoformat(before["started_at"]),
        todo=tuple(number for number in range(manifest.blocks) if number not in done),
    )


def _tables(config: AnnotateConfig) -> Tables:
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
    check_tower(model, config.tower_weights)
    return Tables(
        schemes=template.schemes,
        crop_size=model.tower.crop_size,
        embedding_dim=model.tower.embedding_dim if config.keep_embeddings else None,
        model=f"{model.name}@{checkpoint.digest(folder)}",
    )


def _check_same(run_id: str, before: dict[str, Any], asked: dict[str, Any]) -> None:
    for key, value in asked.items():
        if (then := before.get(key)) != value:
            raise UserError(f"run {run_id} was begun with {key} = {then}, not {value}: give that again, or another --run-id")


def _read_json(fs: fsspec.AbstractFileSystem, path: str) -> dict[str, Any] | None:
    try:
        fs.invalidate_cache()
        return json.loads(fs.cat_file(path))
    except FileNotFoundError:
        return None
    except Exception as error:  # storage clients raise kinds of their own
        raise UserError(f"the output can't be read: {error or type(error).__name__}; check the path and the credentials") from None
