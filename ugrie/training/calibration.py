"""Validation loss and temperature scaling, both measured on held-out images."""

import numpy as np
import torch

from ugrie.data.labelled import Labelled
from ugrie.model.model import UGRIE


def validation_loss(model: UGRIE, data: Labelled) -> float:
    """Return the cross-entropy of a slot in nats, averaged over the schemes that have labels.

    Each image is asked for all schemes, in the checkpoint's order.
    """
    losses = [
        -float((targets * np.log(np.maximum(probs, 1e-12))).sum(1).mean())
        for targets, probs in _uncalibrated_predictions(model, data)
        if len(targets)
    ]
    return float(np.mean(losses))


def fit_temperatures(model: UGRIE, data: Labelled) -> dict[str, float]:
    """Return the temperature of each scheme with the least cross-entropy (Guo et al., ICML 2017).

    Grid search over 121 values from 0.5 to 4. A scheme without labels gets 1.
    """
    grid = np.exp(np.linspace(np.log(0.5), np.log(4), 121))
    temperatures = {}
    for scheme, (targets, probs) in zip(model.config.schemes, _uncalibrated_predictions(model, data), strict=True):
        log_probs = np.log(np.maximum(probs, 1e-12))[None] / grid[:, None, None]
        log_probs -= np.log(np.exp(log_probs).sum(-1, keepdims=True))
        losses = -(targets[None] * log_probs).sum((1, 2))
        temperatures[scheme.name] = round(float(grid[losses.argmin()]), 4) if len(targets) else 1.0
    return temperatures


def _uncalibrated_predictions(model: UGRIE, data: Labelled) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return targets and uncalibrated probabilities of each scheme, over the images that have a label of it."""
    model.eval()
    config = model.config
    model.config = config.model_copy(update={"temperatures": {}})
    try:
        probs = model.predict(torch.from_numpy(data.embeddings)).probs
    finally:
        model.config = config
    has_label = {scheme.name: data.targets[scheme.name].any(1) for scheme in config.schemes}
    return [(data.targets[name][rows], probs[name][rows]) for name, rows in has_label.items()]
