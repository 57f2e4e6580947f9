"""Temperatures correct over- and underconfidence; BART and regression share by merit; the validation loss is a cross-entropy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ugrie.data.labelled import Labelled
from ugrie.model.model import UGRIE
from ugrie.training.calibration import calibrate, default_shares, validation_loss


def labelled(embeddings: np.ndarray, targets: dict[str, np.ndarray]) -> Labelled:
    count = len(embeddings)
    return Labelled(embeddings, targets, np.arange(count).astype(str), np.ones(count, np.int64), np.full(count, "photos"))


def soft(count: int, labels: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(labels), count).astype(np.float32)


def leaning(model: UGRIE, seed: int = 5) -> UGRIE:
    """Give the model's regression an opinion of its own about every label."""
    generator = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(model.mapper.weights, generator=generator)
    torch.nn.init.normal_(model.mapper.landmarks, generator=generator)
    torch.nn.init.normal_(model.mapper.label_weights, generator=generator)
    return model


def probs_at(model: UGRIE, embeddings: np.ndarray, share: float) -> dict[str, np.ndarray]:
    plain = model.config
    model.config = plain.model_copy(update={"temperatures": {}, "regression_shares": dict.fromkeys(plain.temperatures, share)})
    probs = model.predict(torch.from_numpy(embeddings)).probs
    model.config = plain
    return probs


@pytest.fixture
def model(make_model, nested) -> UGRIE:
    model = leaning(make_model(nested))
    model.config = model.config.model_copy(update={"temperatures": dict.fromkeys((scheme.name for scheme in nested), 1.0)})
    return model


@pytest.mark.parametrize("truth", [0.7, 1.0, 1.8])
def test_a_temperature_makes_up_for_a_models_over_or_underconfidence(model, truth):
    """The targets are the pool's own probabilities at a temperature, which is the one found."""
    embeddings = np.random.default_rng(3).normal(size=(200, 8)).astype(np.float32)
    config = model.config
    predicted = {
        name: pooled(probs_at(model, embeddings, 0)[name], probs_at(model, embeddings, 1)[name], 0.75) for name in config.temperatures
    }
    targets = {name: (probs ** (1 / truth)) / (probs ** (1 / truth)).sum(1, keepdims=True) for name, probs in predicted.items()}
    found = calibrate(model, labelled(embeddings, targets))
    assert found.temperatures == pytest.approx(dict.fromkeys(found.temperatures, truth), rel=0.03)
    assert found.regression_shares == dict.fromkeys(config.temperatures, 0.75)
    assert model.config is config


def pooled(bart: np.ndarray, regression: np.ndarray, share: float) -> np.ndarray:
    mixed = bart ** (1 - share) * regression**share
    return mixed / mixed.sum(1, keepdims=True)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_whoever_is_right_has_the_larger_share(model, share):
    embeddings = np.random.default_rng(3).normal(size=(400, 8)).astype(np.float32)
    targets = probs_at(model, embeddings, share)
    found = calibrate(model, labelled(embeddings, targets))
    assert found.regression_shares == dict.fromkeys(targets, share)
    assert found.temperatures == pytest.approx(dict.fromkeys(targets, 1.0), rel=0.03)


def test_shares_are_the_default_ones_where_few_images_show_no_clear_difference(model):
    """Each image's label is as likely by BART as by the regression, and which of them says so differs from image to image."""
    embeddings = np.random.default_rng(3).normal(size=(6, 8)).astype(np.float32)
    by_bart, by_regression = probs_at(model, embeddings, 0), probs_at(model, embeddings, 1)
    alternate = (np.arange(6) % 2 == 0)[:, None]
    targets = {name: np.where(alternate, by_bart[name], by_regression[name]).astype(np.float32) for name in by_bart}
    assert calibrate(model, labelled(embeddings, targets)).regression_shares == dict.fromkeys(targets, 0.75)


def test_a_scheme_without_labels_is_bart_alone(model):
    embeddings = np.random.default_rng(3).normal(size=(9, 8)).astype(np.float32)
    targets = {scheme.name: np.zeros((9, len(scheme.labels)), np.float32) for scheme in model.config.schemes}
    first = model.config.schemes[0]
    targets[first.name] = soft(9, len(first.labels), 1)
    found = calibrate(model, labelled(embeddings, targets))
    others = {name for name in targets if name != first.name}
    assert {found.regression_shares[name] for name in others} == {0.0}
    assert {found.temperatures[name] for name in others} == {1.0}
    assert default_shares(model, labelled(embeddings, targets)) == {first.name: 0.75}


def test_images_count_by_their_repeats(model):
    """BART's word for most images, the regression's for the few that training repeats."""
    embeddings = np.random.default_rng(3).normal(size=(400, 8)).astype(np.float32)
    by_bart, by_regression = probs_at(model, embeddings, 0), probs_at(model, embeddings, 1)
    few = np.arange(400) % 20 == 0
    targets = {name: np.where(few[:, None], by_regression[name], by_bart[name]) for name in by_bart}
    data = labelled(embeddings, targets)
    assert 1.0 not in calibrate(model, data).regression_shares.values()
    repeated = replace(data, repeats=np.where(few, 1000, 1))
    assert set(calibrate(model, repeated).regression_shares.values()) - {0.75} == {1.0}


def test_calibration_does_not_depend_on_an_earlier_one(model, nested, embeddings):
    targets = {scheme.name: soft(len(embeddings), len(scheme.labels), 4) for scheme in nested}
    data = labelled(embeddings, targets)
    first = calibrate(model, data)
    model.config = model.config.model_copy(
        update={"temperatures": dict.fromkeys(targets, 3.0), "regression_shares": dict.fromkeys(targets, 0.9)}
    )
    assert calibrate(model, data) == first


def test_the_validation_loss_is_the_cross_entropy_of_what_is_predicted(make_model, nested, embeddings):
    model = make_model(nested)
    model.config = model.config.model_copy(update={"temperatures": {}})
    targets = {scheme.name: soft(len(embeddings), len(scheme.labels), 4) for scheme in nested}
    targets["moment"][:4] = 0
    predicted = model.predict(torch.from_numpy(embeddings)).probs
    rows = {name: target.any(1) for name, target in targets.items()}
    expected = np.mean([-(targets[n][r] * np.log(predicted[n][r])).sum(1).mean() for n, r in rows.items()])
    assert validation_loss(model, labelled(embeddings, targets)) == pytest.approx(expected, abs=1e-4)
