"""Validation loss, the pool of BART and regression, and temperature scaling, all measured on held-out images."""

from dataclasses import dataclass

import numpy as np
import torch

from ugrie.data.labelled import Labelled
from ugrie.model.model import UGRIE

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
DEFAULT = 0.75  # the share of the regression unless the held-out images clearly favour another (benchmarks/pool.py)
GRID = np.exp(np.linspace(np.log(0.5), np.log(4), 121))  # temperatures


@dataclass(frozen=True)
class Calibration:
    """The regression's share in each scheme's probabilities, and each scheme's temperature."""

    regression_shares: dict[str, float]
    temperatures: dict[str, float]


def validation_loss(model: UGRIE, data: Labelled) -> float:
    """Return the cross-entropy of a slot in nats, averaged over the schemes that have labels.

    Each image is asked for all schemes, in the checkpoint's order.
    """
    losses = [
        -float((targets * np.log(np.maximum(probs, 1e-12))).sum(1).mean())
        for targets, probs in _uncalibrated_predictions(model, data, model.config.regression_shares)
        if len(targets)
    ]
    return float(np.mean(losses))


def default_shares(model: UGRIE, data: Labelled) -> dict[str, float]:
    """Return the regression's share of each scheme that the data has labels for, where no image is held out to choose it by."""
    return {scheme.name: DEFAULT for scheme in model.config.schemes if data.targets[scheme.name].any()}


def calibrate(model: UGRIE, data: Labelled) -> Calibration:
    """Return the share of the regression and the temperature (Guo et al., ICML 2017) of each scheme with the least cross-entropy.

    Both have their grid, and images count by their `repeats`, as in training. A share other than the default needs a loss that is lower by
    more than twice its standard error, since few images are held out. A scheme without labels gets 0, which is BART alone, and a
    temperature of 1.
    """
    names = [scheme.name for scheme in model.config.schemes]
    by_bart, by_regression = (_uncalibrated_predictions(model, data, dict.fromkeys(names, share)) for share in (0.0, 1.0))
    shares, temperatures = dict.fromkeys(names, 0.0), dict.fromkeys(names, 1.0)
    for name, (targets, bart), (_, regression) in zip(names, by_bart, by_regression, strict=True):
        if not len(targets):
            continue
        weights = data.repeats[data.targets[name].any(1)].astype(float)
        found = {}
        for share in SHARES:
            pooled = (1 - share) * np.log(np.maximum(bart, 1e-12)) + share * np.log(np.maximum(regression, 1e-12))
            found[share] = _best_temperature(targets * (weights / weights.mean())[:, None], pooled)
        best = min(SHARES, key=lambda share: found[share][1].sum())
        gain = found[DEFAULT][1] - found[best][1]
        clear = len(gain) > 1 and gain.mean() > 2 * gain.std(ddof=1) / np.sqrt(len(gain))
        shares[name] = best if clear else DEFAULT
        temperatures[name] = round(found[shares[name]][0], 4)
    return Calibration(shares, temperatures)


def _best_temperature(targets: np.ndarray, log_probs: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the temperature with the least cross-entropy, and each image's at it. Both arguments are [images, labels]."""
    scaled = log_probs[None] / GRID[:, None, None]
    losses = np.logaddexp.reduce(scaled, -1) * targets.sum(1) - (targets[None] * scaled).sum(-1)
    best = losses.sum(1).argmin()
    return float(GRID[best]), losses[best]


def _uncalibrated_predictions(model: UGRIE, data: Labelled, shares: dict[str, float]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return targets and uncalibrated probabilities of each scheme, over the images that have a label of it."""
    model.eval()
    config = model.config
    model.config = config.model_copy(update={"temperatures": {}, "regression_shares": shares})
    try:
        probs = model.predict(torch.from_numpy(data.embeddings)).probs
    finally:
        model.config = config
    has_label = {scheme.name: data.targets[scheme.name].any(1) for scheme in config.schemes}
    return [(data.targets[name][rows], probs[name][rows]) for name, rows in has_label.items()]
