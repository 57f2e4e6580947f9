"""The model a run uses: a bundled name, a folder, or a URL whose files every worker fetches for itself."""

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from pipeline.errors import UserError
from pipeline.storage import Options, connect
from ugrie import checkpoint


def local_folder(model: str, options: Options) -> Path:
    """The model's folder on this machine. Raises UserError where there is none."""
    try:
        return checkpoint.find(_fetched(model, json.dumps(options, sort_keys=True)) if "://" in model else model)
    except checkpoint.CheckpointError as error:
        raise UserError(str(error)) from None


def check_tower(model: checkpoint.Config, weights: str | None) -> None:
    """Raises UserError where the workers could not load the image tower: this machine stands for them."""
    if model.tower.name is None:
        if weights is not None:
            raise UserError(f"tower_weights = {weights}: {model.name} brings its own tower; leave this out")
    elif weights is not None:
        if not Path(weights).is_file():
            raise UserError(f"tower_weights = {weights}: there is no such file; it must be there on every worker, too")
        if not weights.endswith(".safetensors"):
            raise UserError(f"tower_weights = {weights}: weights are read as .safetensors only, since other files can hold code")
    else:
        from ugrie.encoder import fetch_weights  # needs torch, whose import takes seconds: only where weights are to be fetched

        try:
            fetch_weights(model.tower)
        except OSError as error:
            raise UserError(str(error)) from None


@cache
def _fetched(url: str, options: str) -> str:
    fs, path = connect(url, json.loads(options))
    folder = tempfile.mkdtemp(prefix="ugrie-model-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for file in checkpoint.FILES:
        try:
            fs.get_file(f"{path.rstrip('/')}/{file}", f"{folder}/{file}")
        except (FileNotFoundError, PermissionError) as error:
            raise UserError(f"{url} is no UGRIE checkpoint that can be read: {file}: {error}") from None
    return folder
