"""Finds a run's model and the weights of its image tower: a bundled name, a local path, or a URL that each machine fetches once."""

import json
from functools import cache
from pathlib import Path

from pipeline.errors import UserError
from pipeline.storage.download_cache import download
from pipeline.storage.filesystem import Options
from pipeline.storage.uris import without_secrets
from ugrie.model import checkpoint

TOWER = "tower.safetensors"


def local_folder(model: str, options: Options) -> Path:
    """Return the model's folder on this machine. Raises UserError where there is none."""
    try:
        if "://" not in model:
            return checkpoint.find(model)
        return checkpoint.find(str(_local({file: f"{model.rstrip('/')}/{file}" for file in checkpoint.FILES}, options)))
    except checkpoint.CheckpointError as error:
        raise UserError(str(error)) from None


def tower_file(model: checkpoint.Config, weights: str | None, options: Options) -> str | None:
    """Return the file of the image tower's weights on this machine: the given one, or open_clip's download.

    Returns None where the checkpoint holds the weights. Raises UserError where they can't be loaded.
    """
    if model.tower.name is None:
        if weights is not None:
            raise UserError(f"tower_weights = {without_secrets(weights)}: {model.name} brings its own tower; leave this out")
        return None
    if weights is not None:
        return _given_tower(weights, options)
    from ugrie.vision.download import fetch_weights

    try:
        return fetch_weights(model.tower)
    except OSError as error:
        raise UserError(str(error)) from None


def _given_tower(weights: str, options: Options) -> str:
    shown = without_secrets(weights)
    if not weights.partition("?")[0].endswith(".safetensors"):
        raise UserError(f"tower_weights = {shown}: weights are read as .safetensors only, since other files can hold code")
    if "://" in weights:
        return str(_local({TOWER: weights}, options) / TOWER)
    if not Path(weights).is_file():
        raise UserError(f"tower_weights = {shown}: there is no such file; put it on every worker, too, or give a URL")
    return weights


def _local(files: dict[str, str], options: Options) -> Path:
    return _once(json.dumps(files), json.dumps(options, sort_keys=True))


@cache
def _once(files: str, options: str) -> Path:
    return download(json.loads(files), json.loads(options))
