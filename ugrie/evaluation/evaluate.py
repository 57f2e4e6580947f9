"""Evaluates a checkpoint on labelled images.

    evaluation = evaluate_model("ugrie-tiny", Path("oasis"), {"valence": (1, 7), "arousal": (1, 7)})
    print(evaluation.table())

docs/evaluation.md defines the metrics and names their sources.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ugrie.data.table import DataError, Table
from ugrie.evaluation.labelled_set import read_labelled_set
from ugrie.evaluation.metrics import RESAMPLES, SEED, confidence_intervals, confusion, contradictions, scheme_metrics
from ugrie.model import checkpoint
from ugrie.model.model import UGRIE
from ugrie.model.prediction import Prediction
from ugrie.vision.embeddings import embed

logger = logging.getLogger(__name__)
TITLES = {
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
    """A checkpoint's predictions for n images, their labels, and the metrics.

    `record` holds all metrics in the form of the JSON output. `prediction` covers all the checkpoint's schemes. `targets` has the
    labels of each scheme that has any, float32 [n, labels]; a row of zeros is an image without a label.
    """

    record: Mapping[str, Any]
    targets: Mapping[str, np.ndarray]
    prediction: Prediction

    def table(self) -> str:
        """Return the metrics as lines of text of at most 100 columns, except for the path of the data."""
        record = self.record
        lines = [f"{record['model']} on {record['data']}", _image_counts(record), ""]
        lines.append(f"{'scheme':<14}{'n':>9}   {'measure':<19}{'value':>9}   95 % interval")
        for name, metrics in record["schemes"].items():
            prefix = f"{name:<14}{metrics['n']:>9,}"
            for key, title in TITLES.items():
                if key in metrics:
                    low, high = metrics["interval"].get(key, (None, None))
                    interval = "" if low is None else f"   {low:.3f} to {high:.3f}"
                    lines.append(f"{prefix}   {title:<19}{metrics[key]:>9.3f}{interval}")
                    prefix = " " * len(prefix)
        if record["consistency"]:
            lines += ["", f"{'contradictions of':<42}{'images':>9}{'share':>9}   95 % interval"]
            for pair, found in record["consistency"].items():
                low, high = found["interval"]["share"]
                lines.append(f"{pair:<42}{found['contradictions']:>9,}{found['share']:>9.2%}   {low:.2%} to {high:.2%}")
        return "\n".join(lines)


def evaluate_model(
    name_or_folder: str, data: Path, ranges: Mapping[str, tuple[float, float]], tower_weights: Path | None = None
) -> Evaluation:
    """Predict all of a checkpoint's schemes in one sentence, as a corpus is annotated, and evaluate those that `data` has labels for.

    The predictions for a scheme are therefore the same whatever other labels the data has. `ranges` are the scales of the ratings by
    scheme, where they differ from the scheme's own. `tower_weights` is the file of CLIP weights for a checkpoint that does not
    bundle its tower. Raises CheckpointError and DataError, if possible before the model is loaded.
    """
    folder = checkpoint.find(name_or_folder)
    config = checkpoint.read_config(folder)
    if tower_weights is not None and config.tower.vision_cfg is not None:
        raise checkpoint.CheckpointError(f"--tower-weights {tower_weights}: {config.name} bundles its own tower: leave the flag out")
    labelled_set = read_labelled_set(data, config, ranges)
    model = UGRIE.from_pretrained(folder, tower_weights=None if tower_weights is None else str(tower_weights))
    embeddings, broken = _embed(model, labelled_set.table)
    kept = np.delete(np.arange(len(labelled_set.table)), list(broken))
    targets = {name: target[kept] for name, target in labelled_set.targets.items() if target[kept].any()}
    prediction = predict(model, embeddings[kept])
    results: dict[str, dict[str, Any]] = {}
    for scheme in config.schemes:
        if scheme.name not in targets:
            continue
        labelled = select_labelled(scheme.name, targets, prediction)
        metrics: dict[str, Any] = {
            "kind": scheme.kind,
            **scheme_metrics(scheme, *labelled),
            "interval": confidence_intervals(scheme, *labelled),
        }
        if scheme.kind == "categorical":
            metrics |= {"labels": scheme.label_names, "confusion": confusion(scheme, labelled[0], labelled[2]).tolist()}
        else:
            metrics["range"] = scheme.range
        results[scheme.name] = metrics
    record = {
        "model": f"{config.name}@{checkpoint.digest(folder)}",
        "data": str(data),
        "n": len(kept),
        "without_labels": labelled_set.without_labels,
        "broken": {str(labelled_set.table.names[row]): reason for row, reason in broken.items()},
        "bootstrap": {"level": 0.95, "resamples": RESAMPLES, "seed": SEED},
        "schemes": results,
        "consistency": contradictions(prediction),
    }
    return Evaluation(record, targets, prediction)


def select_labelled(scheme: str, targets: Mapping[str, np.ndarray], prediction: Prediction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return targets, probabilities and choices of the images that have a label of a scheme."""
    rows = targets[scheme].any(1)
    return targets[scheme][rows], prediction.probs[scheme][rows], prediction.choices[scheme][rows]


def predict(model: UGRIE, embeddings: np.ndarray, schemes: Sequence[str] | None = None, batch_size: int = 1024) -> Prediction:
    """Return a checkpoint's calibrated prediction for any number of images, batch by batch; of all its schemes by default."""
    batches = (torch.from_numpy(embeddings[start : start + batch_size]) for start in range(0, len(embeddings), batch_size))
    parts = [model.predict(batch, schemes) for batch in batches]
    return Prediction(
        parts[0].template,
        {name: np.concatenate([part.probs[name] for part in parts]) for name in parts[0].probs},
        {name: np.concatenate([part.choices[name] for part in parts]) for name in parts[0].choices},
    )


def _embed(model: UGRIE, table: Table) -> tuple[np.ndarray, Mapping[int, str]]:
    """Return the embeddings of a table's images, and by row the reason why an image can't be decoded. Embeddings are returned as they are.

    Raises DataError if no image can be decoded, and CheckpointError if the tower's weights can't be had.
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


def _image_counts(record: Mapping[str, Any]) -> str:
    """Return the line of the table that counts the images evaluated and those left out."""
    left_out = [f"{len(record['broken']):,} that can't be read"] if record["broken"] else []
    left_out += [f"{record['without_labels']:,} without a label"] if record["without_labels"] else []
    return f"{record['n']:,} image{'s' * (record['n'] != 1)}" + (f" (left out: {', '.join(left_out)})" if left_out else "")
