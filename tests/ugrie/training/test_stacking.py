"""The labels' scores are fitted to the regression's out-of-fold outputs, on a scheme's own or on all, whichever predicts better."""

import numpy as np
import pytest
import torch

from ugrie.schemes.scheme import load_scheme
from ugrie.training.kernel_ridge import Regression
from ugrie.training.stacking import fit_label_scores

POLARITY, VALENCE, EKMAN = (load_scheme(name) for name in ("polarity2", "valence", "ekman6"))
GROUPS = np.arange(4000).astype(str)
ONCE = np.ones(4000, np.int64)


def regression(outputs: np.ndarray) -> Regression:
    return Regression(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1), outputs.astype(np.float32), False)


def drawn(probs: np.ndarray, seed: int = 0) -> np.ndarray:
    chosen = (probs.cumsum(1) > np.random.default_rng(seed).random((len(probs), 1))).argmax(1)
    return np.eye(probs.shape[1], dtype=np.float32)[chosen]


def softmax(scores: np.ndarray) -> np.ndarray:
    return torch.from_numpy(scores).softmax(-1).numpy()


def test_scores_are_the_log_probabilities_of_the_labels():
    """Labels drawn from known probabilities of the outputs: these are found again."""
    outputs = np.random.default_rng(1).normal(size=(4000, EKMAN.answers))
    truth = softmax(2 * outputs + np.array([0.5, 0, 0, -1, 0, 0]))
    weights, bias = fit_label_scores(regression(outputs), {"ekman6": drawn(truth)}, [EKMAN], GROUPS, ONCE)
    assert np.abs(softmax(outputs @ weights + bias) - truth).mean() < 0.02


def test_other_schemes_outputs_are_used_only_where_they_tell_more():
    rng = np.random.default_rng(2)
    outputs = rng.normal(size=(4000, POLARITY.answers + VALENCE.answers))
    sign = outputs[:, [POLARITY.answers]]  # the output of valence
    informed = softmax(3 * np.concatenate([-sign, sign], 1))
    own = softmax(3 * outputs[:, : POLARITY.answers])
    levels = np.eye(len(VALENCE.labels), dtype=np.float32)[rng.integers(0, len(VALENCE.labels), 4000)]
    for truth, uses_valence in ((informed, True), (own, False)):
        targets = {"polarity2": drawn(truth), "valence": levels}
        weights, bias = fit_label_scores(regression(outputs), targets, [POLARITY, VALENCE], GROUPS, ONCE)
        assert (np.abs(weights[POLARITY.answers :, :2]).max() > 1) == uses_valence
        assert np.abs(softmax((outputs @ weights + bias)[:, :2]) - truth).mean() < 0.03


def test_label_distributions_count_by_their_shares():
    outputs = np.zeros((4000, VALENCE.answers))
    shares = np.tile(np.array([0, 0, 0.25, 0.75, 0, 0, 0, 0, 0], np.float32), (4000, 1))
    weights, bias = fit_label_scores(regression(outputs), {"valence": shares}, [VALENCE], GROUPS, ONCE)
    assert softmax(outputs[:1] @ weights + bias)[0] == pytest.approx(shares[0], abs=0.01)


def test_few_images_and_labels_that_none_of_them_has_still_get_scores():
    outputs = np.random.default_rng(3).normal(size=(6, EKMAN.answers))
    targets = np.zeros((6, 6), np.float32)
    targets[:4, 0] = targets[4:, 1] = 1
    weights, bias = fit_label_scores(regression(outputs), {"ekman6": targets}, [EKMAN], GROUPS[:6], ONCE[:6])
    probs = softmax(outputs @ weights + bias)
    assert (probs > 0.001).all()
    assert np.isfinite(probs).all()


def test_a_scheme_without_labels_gets_zeros():
    outputs = np.random.default_rng(4).normal(size=(400, POLARITY.answers + EKMAN.answers))
    targets = {"polarity2": drawn(softmax(outputs[:, :2])), "ekman6": np.zeros((400, 6), np.float32)}
    weights, bias = fit_label_scores(regression(outputs), targets, [POLARITY, EKMAN], GROUPS[:400], ONCE[:400])
    assert not weights[:, 2:].any()
    assert not bias[2:].any()
    assert weights[:, :2].any()


def test_repeated_images_count_as_often_as_they_are_trained_on():
    """A rare label whose images are repeated is as likely as the other."""
    outputs = np.zeros((4000, POLARITY.answers))
    rare = np.arange(4000) % 10 == 0
    targets = np.stack([rare, ~rare], 1).astype(np.float32)
    for repeats, expected in ((ONCE, 0.1), (np.where(rare, 9, 1), 0.5)):
        weights, bias = fit_label_scores(regression(outputs), {"polarity2": targets}, [POLARITY], GROUPS, repeats)
        assert softmax(outputs[:1] @ weights + bias)[0, 0] == pytest.approx(expected, abs=0.01)
