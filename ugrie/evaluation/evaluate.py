"""Measures a checkpoint on labelled images.

    evaluation = evaluate_model("ugrie-tiny", Path("oasis"), {"valence": (1, 7), "arousal": (1, 7)})
    print(evaluation.table())

docs/evaluation.md says what the measures are and where they come from.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ugrie.data.table import DataError, Table
from ugrie.evaluation.labelled_set import read_labels
from ugrie.evaluation.metrics import RESAMPLES, SEED, confusion, contradictions, evaluate, intervals
from ugrie.model import checkpoint
from ugrie.model.model import UGRIE
from ugrie.model.prediction import Prediction
from ugrie.vision.embeddings import embed

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

    `record` is everything measured, as JSON has it. `prediction` is of all the checkpoint's schemes; `targets` are the labels,
    by scheme that has any float32 [n, labels]; a row of zeros is an image without a label.
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


def evaluate_model(
    name_or_folder: str, data: Path, ranges: Mapping[str, tuple[float, float]], tower_weights: Path | None = None
) -> Evaluation:
    """Asks a checkpoint for all its schemes in one sentence, as a corpus is annotated, and measures those that `data` has labels of.

    What is said of a scheme is thus the same whatever else the data has labels of. `ranges` are the scales on which ratings were
    given, by scheme, where they are not the scheme's own. `tower_weights` is the file of CLIP weights for a checkpoint that does
    not bundle its tower. Raises CheckpointError and DataError, before the model is loaded where that can be.
    """
    folder = checkpoint.find(name_or_folder)
    config = checkpoint.read_config(folder)
    if tower_weights is not None and config.tower.vision_cfg is not None:
        raise checkpoint.CheckpointError(f"--tower-weights {tower_weights}: {config.name} brings its own tower: leave the flag out")
    labels = read_labels(data, config, ranges)
    model = UGRIE.from_pretrained(folder, tower_weights=None if tower_weights is None else str(tower_weights))
    embeddings, broken = _embed(model, labels.table)
    kept = np.delete(np.arange(len(labels.table)), list(broken))
    targets = {name: found[kept] for name, found in labels.targets.items() if found[kept].any()}
    prediction = predict(model, embeddings[kept])
    measured: dict[str, dict[str, Any]] = {}
    for scheme in config.schemes:
        if scheme.name not in targets:
            continue
        given = labelled(scheme.name, targets, prediction)
        measured[scheme.name] = {"kind": scheme.kind, **evaluate(scheme, *given), "interval": intervals(scheme, *given)}
        if scheme.kind == "categorical":
            measured[scheme.name] |= {"labels": scheme.label_names, "confusion": confusion(scheme, given[0], given[2]).tolist()}
        else:
            measured[scheme.name]["range"] = scheme.range
    record = {
        "model": f"{config.name}@{checkpoint.digest(folder)}",
        "data": str(data),
        "n": len(kept),
        "without_labels": labels.without_labels,
        "broken": {str(labels.table.names[row]): reason for row, reason in broken.items()},
        "bootstrap": {"level": 0.95, "resamples": RESAMPLES, "seed": SEED},
        "schemes": measured,
        "consistency": contradictions(prediction),
    }
    return Evaluation(record, targets, prediction)


def labelled(scheme: str, targets: Mapping[str, np.ndarray], prediction: Prediction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, probabilities and choices of the images that have a label of a scheme."""
    has = targets[scheme].any(1)
    return targets[scheme][has], prediction.probs[scheme][has], prediction.choices[scheme][has]


def _embed(model: UGRIE, table: Table) -> tuple[np.ndarray, Mapping[int, str]]:
    """Embeddings of a table's images, and by row what is wrong with those that can't be decoded. Those it brings are as they are.

    Raises DataError where no image can be decoded, and CheckpointError where the tower's weights can't be had.
    """
    if isinstance(table.images, np.ndarray):
        return table.images, {}
    try:
        model.load_encoder()  # before any image is decoded
    except (OSError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{model.config.name} can't embed images (embeddings as .npz need no tower): {error}") from error
    embedded = embed(model.encode, table.images, model.config.tower)
    for row, reason in embedded.broken.items():
        logger.warning("left out, as it can't be read: %s (%s)", table.names[row], reason)
    if len(embedded.broken) == len(table):
        raise DataError(f"{table.source}: none of the {len(table)} images can be read; {table.names[0]}: {embedded.broken[0]}")
    return embedded.embeddings, embedded.broken


def predict(model: UGRIE, embeddings: np.ndarray, schemes: Sequence[str] | None = None, batch_size: int = 1024) -> Prediction:
    """A checkpoint's calibrated prediction for any number of images; of all its schemes by default."""
    batches = (torch.from_numpy(embeddings[start : start + batch_size]) for start in range(0, len(embeddings), batch_size))
    parts = [model.predict(batch, schemes) for batch in batches]
    return Prediction(
        parts[0].template,
        {name: np.concatenate([part.probs[name] for part in parts]) for name in parts[0].probs},
        {name: np.concatenate([part.choices[name] for part in parts]) for name in parts[0].choices},
    )


def _images(record: Mapping[str, Any]) -> str:
    left_out = [f"{len(record['broken']):,} that can't be read"] if record["broken"] else []
    left_out += [f"{record['without_labels']:,} without a label"] if record["without_labels"] else []
    return f"{record['n']:,} image{'s' * (record['n'] != 1)}" + (f" (left out: {', '.join(left_out)})" if left_out else "")
