"""Measures are what their definitions say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ugrie.evaluation import evaluate
from ugrie.schemes import load_scheme

POLARITY, SENTIMENT, VALENCE = (load_scheme(name) for name in ("polarity2", "polarity3", "valence"))


def one_hot(labels, count: int) -> np.ndarray:
    return np.eye(count)[labels]


def test_categorical_measures_are_as_counted_by_hand():
    targets = one_hot([0, 0, 0, 2], 3)
    probs = np.array([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.2, 0.6]])
    measured = evaluate(SENTIMENT, targets, probs)
    assert measured["n"] == 4
    assert measured["accuracy"] == pytest.approx(3 / 4)
    assert measured["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert measured["macro_f1"] == pytest.approx((0.8 + 0 + 2 / 3) / 3), "a label that never occurs counts as zero"
    assert measured["nll"] == pytest.approx(-np.log([0.8, 0.5, 0.1, 0.6]).mean())
    assert "roc_auc" not in measured


def test_two_labels_have_an_area_under_the_curve():
    probs = np.array([0.1, 0.4, 0.35, 0.8])
    measured = evaluate(POLARITY, one_hot([0, 0, 1, 1], 2), np.stack([1 - probs, probs], 1))
    assert measured["roc_auc"] == pytest.approx(0.75)


@pytest.mark.filterwarnings("ignore:A single label was found")
def test_one_class_alone_has_none():
    assert "roc_auc" not in evaluate(POLARITY, one_hot([0, 0], 2), np.array([[0.6, 0.4], [0.7, 0.3]]))


def test_a_probability_of_zero_costs_much_but_not_everything():
    assert 20 < evaluate(POLARITY, one_hot([0, 1], 2), one_hot([1, 1], 2))["nll"] * 2 < 30


@given(seed=st.integers(0, 1000), count=st.integers(3, 40))
def test_ordinal_measures_are_those_of_the_expectations(seed, count):
    draw = np.random.default_rng(seed)
    targets, probs = draw.dirichlet(np.ones(9), count), draw.dirichlet(np.ones(9), count)
    wanted, given_ = targets @ np.arange(1, 10), probs @ np.arange(1, 10)
    measured = evaluate(VALENCE, targets, probs)
    r = stats.pearsonr(wanted, given_).statistic
    concordance = 2 * r * wanted.std() * given_.std() / (wanted.var() + given_.var() + (wanted.mean() - given_.mean()) ** 2)
    assert measured["n"] == count
    assert measured["pearson_r"] == pytest.approx(r, abs=1e-6)
    assert measured["ccc"] == pytest.approx(concordance, abs=1e-6)
    assert measured["mae"] == pytest.approx(np.mean([abs(a - b) for a, b in zip(wanted, given_, strict=True)]))
    assert measured["mae_of_constant"] == pytest.approx(np.mean(np.abs(wanted - wanted.mean())))


@pytest.mark.parametrize("scheme", [POLARITY, SENTIMENT, VALENCE], ids=lambda scheme: scheme.name)
def test_perfect_predictions_measure_perfectly(scheme):
    count = len(scheme.labels)
    targets = one_hot(np.arange(12) % count, count)
    measured = evaluate(scheme, targets, targets)
    best = {"accuracy": 1, "balanced_accuracy": 1, "macro_f1": 1, "roc_auc": 1, "nll": 0, "pearson_r": 1, "ccc": 1, "mae": 0}
    checked = {name: value for name, value in measured.items() if name in best}
    assert len(checked) >= 3
    assert checked == pytest.approx({name: best[name] for name in checked})


def test_a_constant_prediction_correlates_with_nothing():
    targets = one_hot([0, 4, 8], 9)
    measured = evaluate(VALENCE, targets, np.tile(one_hot([4], 9), (3, 1)))
    assert measured["pearson_r"] == pytest.approx(0)
    assert measured["ccc"] == pytest.approx(0)
    assert measured["mae"] == pytest.approx(measured["mae_of_constant"]) == pytest.approx(8 / 3)
