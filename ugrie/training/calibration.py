"""How well a model's probabilities fit images held out, and the temperatures that make them fit better."""

import numpy as np
import torch

from ugrie.data.labelled import Labelled
from ugrie.model.model import UGRIE


def validation_loss(model: UGRIE, data: Labelled) -> float:
    """Cross-entropy of a slot in nats, the mean over the schemes, each image asked for all in the checkpoint's order."""
    losses = [
        -float((wanted * np.log(np.maximum(probs, 1e-12))).sum(1).mean()) for wanted, probs in _predictions(model, data) if len(wanted)
    ]
    return float(np.mean(losses))


def fit_temperatures(model: UGRIE, data: Labelled) -> dict[str, float]:
    """The temperature of each scheme that gives the least cross-entropy (Guo et al., ICML 2017), found on a grid."""
    grid = np.exp(np.linspace(np.log(0.5), np.log(4), 121))
    temperatures = {}
    for scheme, (wanted, probs) in zip(model.config.schemes, _predictions(model, data), strict=True):
        logs = np.log(np.maximum(probs, 1e-12))[None] / grid[:, None, None]
        logs -= np.log(np.exp(logs).sum(-1, keepdims=True))
        losses = -(wanted[None] * logs).sum((1, 2))
        temperatures[scheme.name] = round(float(grid[losses.argmin()]), 4) if len(wanted) else 1.0
    return temperatures


def _predictions(model: UGRIE, data: Labelled) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each scheme the targets of the images that have it, and what the model says of them, uncalibrated."""
    model.eval()
    plain = model.config.model_copy(update={"temperatures": {}})
    config, model.config = model.config, plain
    try:
        probs = model.predict(torch.from_numpy(data.embeddings)).probs
    finally:
        model.config = config
    has = {scheme.name: data.targets[scheme.name].any(1) for scheme in config.schemes}
    return [(data.targets[name][rows], probs[name][rows]) for name, rows in has.items()]
