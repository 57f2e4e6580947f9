"""Measures a checkpoint on labelled images.

    evaluation = evaluate_model("ugrie-tiny", Path("oasis"), {"valence": (1, 7), "arousal": (1, 7)})
    print(evaluation.table())

docs/evaluation.md says what the measures are and where they come from.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ugrie import checkpoint, preprocess
from ugrie.annotation import Prediction
from ugrie.labels import read_labels
from ugrie.measures import RESAMPLES, SEED, confusion, contradictions, evaluate, intervals
from ugrie.model import UGRIE
from ugrie.tables import DataError, Table

__all__ = ["Evaluation", "evaluate", "evaluate_model"]

logger = logging.getLogger(__name__)
NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "roc_auc": "ROC AUC",
    "wheel_accuracy": "wheel accuracy",
    "wheel_distance": "wheel distance",
    "nll": "NLL, nats",
    "brier": "Brier score",
    "ece": "ECE",
    "pearson_r": "Pearson r",
    "ccc": "CCC",
    "mae": "MAE",
    "rmse": "RMSE",
    "mae_of_constant": "MAE of a constant",
}


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint says of n images beside what people say of them.

    `record` is everything measured, as JSON has it. `prediction` is of the schemes that have labels, `targets` are those labels,
    by scheme float32 [n, labels]; a row of zeros is an image without a label.
    """

    record: Mapping[str, Any]
    targets: Mapping[str, np.ndarray]
    prediction: Prediction

    def table(self) -> str:
        """The measures as lines of text of at most 100 columns, but for the path of the data."""
        record = self.record
        lines = [f"{record['model']} on {record['data']}", _images(record), ""]
        lines.append(f"{'scheme':<14}{'n':>9}   {'measure':<19}{'value':>9}   95 % interval")
        for name, measured in record["schemes"].items():
            about = f"{name:<14}{measured['n']:>9,}"
            for key, title in NAMES.items():
                if key in measured:
                    low, high = measured["interval"].get(key, (None, None))
                    between = "" if low is None else f"   {low:.3f} to {high:.3f}"
                    lines.append(f"{about}   {title:<19}{measured[key]:>9.3f}{between}")
                    about = " " * len(about)
        if record["consistency"]:
            lines += ["", f"{'contradictions of':<42}{'images':>9}{'share':>9}   95 % interval"]
            for pair, found in record["consistency"].items():
                low, high = found["interval"]["share"]
                lines.append(f"{pair:<42}{found['contradictions']:>9,}{found['share']:>9.2%}   {low:.2%} to {high:.2%}")
        return "\n".join(lines)


def evaluate_model(name_or_folder: str, data: Path, ranges: Mapping[str, tuple[float, float]]) -> Evaluation:
    """Asks a checkpoint for all schemes that `data` has labels of, in its own order, and measures what it says.

    Contradictions are counted in the whole sentence, of all the checkpoint's schemes, as a corpus gets it. `ranges` are the
    scales on which ratings were given, by scheme, where they are not the scheme's own. Raises CheckpointError and DataError,
    before the model is loaded.
    """
    folder = checkpoint.find(name_or_folder)
    config = checkpoint.read_config(folder)
    labels = read_labels(data, config, ranges)
    model = UGRIE.from_pretrained(folder)
    embeddings, broken = embed(model, labels.table)
    kept = ~np.isin(labels.table.names, list(broken))
    targets = {name: found[kept] for name, found in labels.targets.items() if found[kept].any()}
    schemes = [scheme for scheme in config.schemes if scheme.name in targets]
    prediction = predict(model, embeddings, [scheme.name for scheme in schemes])
    measured: dict[str, dict[str, Any]] = {}
    for scheme in schemes:
        has = targets[scheme.name].any(1)
        given = targets[scheme.name][has], prediction.probs[scheme.name][has], prediction.choices[scheme.name][has]
        measured[scheme.name] = {"kind": scheme.kind, **evaluate(scheme, *given), "interval": intervals(scheme, *given)}
        if scheme.kind == "categorical":
            measured[scheme.name] |= {"labels": scheme.label_names, "confusion": confusion(scheme, given[0], given[2]).tolist()}
        else:
            measured[scheme.name]["range"] = scheme.range
    record = {
        "model": f"{config.name}@{checkpoint.digest(folder)}",
        "data": str(data),
        "n": len(embeddings),
        "without_labels": labels.without_labels,
        "broken": broken,
        "bootstrap": {"level": 0.95, "resamples": RESAMPLES, "seed": SEED},
        "schemes": measured,
        "consistency": contradictions(predict(model, embeddings, [scheme.name for scheme in config.schemes])),
    }
    return Evaluation(record, targets, prediction)


def embed(model: UGRIE, table: Table, batch_size: int = 32) -> tuple[np.ndarray, dict[str, str]]:
    """Embeddings of the images that can be read, float32 [readable, embedding_dim], and by name what is wrong with the others.

    Embeddings that the table brings are taken as they are. Raises DataError where no image can be read, and CheckpointError
    where the tower's weights can't be had.
    """
    if isinstance(table.images, np.ndarray):
        return table.images, {}
    broken: dict[str, str] = {}
    crops = _crops(table, model.config.tower.crop_size, broken)
    batches = iter(lambda: list(islice(crops, batch_size)), [])
    try:
        parts = [part.cpu().numpy() for part in model.encode(np.stack(batch) for batch in batches)]
    except OSError as error:  # an image's own are in `broken`
        tower = model.config.tower.name
        raise checkpoint.CheckpointError(f"no weights of {tower}, which embeds images (embeddings as .npz need none): {error}") from error
    if not parts:
        name, reason = next(iter(broken.items()))
        raise DataError(f"{table.source}: none of the {len(table)} images can be read; {name}: {reason}")
    return np.concatenate(parts), broken


def _crops(table: Table, size: int, broken: dict[str, str]) -> Iterator[np.ndarray]:
    for name, stored in zip(table.names, tqdm(table.images, desc="embedding", unit=" images"), strict=True):
        try:
            with Image.open(BytesIO(stored) if isinstance(stored, bytes) else stored) as image:
                crop = preprocess.crop(image, size)
        except Exception as error:  # decoders raise anything; the file is the cause
            broken[str(name)] = f"{type(error).__name__}: {error}"
            logger.warning("left out, as it can't be read: %s (%s)", name, broken[name])
            continue
        yield crop


def predict(model: UGRIE, embeddings: np.ndarray, schemes: Sequence[str], batch_size: int = 1024) -> Prediction:
    """A checkpoint's calibrated prediction for any number of images."""
    batches = (torch.from_numpy(embeddings[start : start + batch_size]) for start in range(0, len(embeddings), batch_size))
    parts = [model.predict(batch, schemes) for batch in batches]
    return Prediction(
        parts[0].template,
        {name: np.concatenate([part.probs[name] for part in parts]) for name in schemes},
        {name: np.concatenate([part.choices[name] for part in parts]) for name in schemes},
    )


def _images(record: Mapping[str, Any]) -> str:
    left_out = [f"{len(record['broken']):,} that can't be read"] if record["broken"] else []
    left_out += [f"{record['without_labels']:,} without a label"] if record["without_labels"] else []
    return f"{record['n']:,} image{'s' * (record['n'] != 1)}" + (f" (left out: {', '.join(left_out)})" if left_out else "")
