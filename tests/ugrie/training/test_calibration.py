"""Temperatures correct over- and underconfidence, and the validation loss is the cross-entropy of the predictions."""

import numpy as np
import pytest
import torch

from ugrie.data.labelled import Labelled
from ugrie.training.calibration import fit_temperatures, validation_loss


def labelled(embeddings: np.ndarray, targets: dict[str, np.ndarray]) -> Labelled:
    count = len(embeddings)
    return Labelled(embeddings, targets, np.arange(count).astype(str), np.ones(count, np.int64), np.full(count, "photos"))


def soft(count: int, labels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(labels), count).astype(np.float32)


@pytest.mark.parametrize("truth", [0.7, 1.0, 1.8])
def test_a_temperature_makes_up_for_a_models_over_or_underconfidence(make_model, nested, truth):
    """The targets are the model's own probabilities at a temperature, which is the one found."""
    model = make_model(nested)
    embeddings = np.random.default_rng(3).normal(size=(200, 8)).astype(np.float32)
    plain = model.config.model_copy(update={"temperatures": {}})
    model.config = plain
    predicted = model.predict(torch.from_numpy(embeddings)).probs
    targets = {name: (probs ** (1 / truth)) / (probs ** (1 / truth)).sum(1, keepdims=True) for name, probs in predicted.items()}
    found = fit_temperatures(model, labelled(embeddings, targets))
    assert found == pytest.approx(dict.fromkeys(found, truth), rel=0.03)
    assert set(found) == {scheme.name for scheme in nested}
    assert model.config is plain


def test_temperatures_are_fitted_to_what_the_model_says_uncalibrated(make_model, nested, embeddings):
    model = make_model(nested)
    targets = {scheme.name: soft(len(embeddings), len(scheme.labels), 4) for scheme in nested}
    data = labelled(embeddings, targets)
    cold = fit_temperatures(model, data)
    model.config = model.config.model_copy(update={"temperatures": dict.fromkeys(cold, 3.0)})
    assert fit_temperatures(model, data) == cold


def test_the_validation_loss_is_the_cross_entropy_of_what_is_predicted(make_model, nested, embeddings):
    model = make_model(nested)
    model.config = model.config.model_copy(update={"temperatures": {}})
    targets = {scheme.name: soft(len(embeddings), len(scheme.labels), 4) for scheme in nested}
    targets["moment"][:4] = 0
    predicted = model.predict(torch.from_numpy(embeddings)).probs
    rows = {name: target.any(1) for name, target in targets.items()}
    expected = np.mean([-(targets[n][r] * np.log(predicted[n][r])).sum(1).mean() for n, r in rows.items()])
    assert validation_loss(model, labelled(embeddings, targets)) == pytest.approx(expected, abs=1e-4)
