"""Finds a run's model and the weights of its image tower: bundled, in a local folder, or fetched once by each machine."""

import json
from functools import cache
from pathlib import Path

from pipeline.errors import UserError
from pipeline.stages import hub
from pipeline.storage.download_cache import download
from pipeline.storage.filesystem import Options
from pipeline.storage.uris import without_secrets
from ugrie.model import checkpoint

TOWER = "tower.safetensors"


def pinned(model: str) -> str:
    """Return a model of the Hugging Face Hub as the URL of its commit, and any other as it is given. Raises UserError."""
    repository = hub.repository(model)
    return model if repository is None else hub.pin(repository)


def local_folder(model: str, options: Options) -> Path:
    """Return the model's folder on this machine. Raises UserError where there is none.

    The storage options are for a URL: the Hugging Face Hub gets none of them.
    """
    repository = hub.repository(model)
    try:
        if repository is not None:
            return checkpoint.find(str(_from_hub(repository, pinned(model))))
        if "://" not in model:
            return checkpoint.find(model)
        return checkpoint.find(str(_local(_files_below(model), options)))
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


def _files_below(url: str) -> dict[str, str]:
    return {file: f"{url.rstrip('/')}/{file}" for file in checkpoint.FILES}


def _from_hub(repository: hub.Repository, commit: str) -> Path:
    try:
        return _local(_files_below(commit), {})
    except UserError as error:
        raise (hub.explained(error.__context__, repository) or error) from None  # the context is the client's own error


def _local(files: dict[str, str], options: Options) -> Path:
    return _once(json.dumps(files), json.dumps(options, sort_keys=True))


@cache
def _once(files: str, options: str) -> Path:
    return download(json.loads(files), json.loads(options))
