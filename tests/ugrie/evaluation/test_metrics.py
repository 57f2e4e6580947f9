"""Metrics equal their definitions and scikit-learn's, and intervals those of resampled images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from ugrie.evaluation import metrics
from ugrie.evaluation.metrics import confidence_intervals, confusion, contradictions, reliability, scheme_metrics, share_interval
from ugrie.model.prediction import Prediction
from ugrie.schemes.scheme import bundled_schemes, load_scheme
from ugrie.schemes.template import Template

POLARITY, SENTIMENT, EKMAN, MIKELS, VALENCE = (load_scheme(name) for name in ("polarity2", "polarity3", "ekman6", "mikels8", "valence"))
SEEDS = st.integers(0, 1000)


def one_hot(labels, count: int) -> np.ndarray:
    return np.eye(count)[labels]


def drawn(scheme, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random labels and probabilities that agree somewhat, rounded so that some scores are equal."""
    draw, size = np.random.default_rng(seed), len(scheme.labels)
    labels = draw.integers(size, size=count)
    probs = np.round(draw.dirichlet(np.ones(size), count) + 0.3 * one_hot(labels, size), 2) + 1e-3
    return labels, probs / probs.sum(1, keepdims=True)


def test_categorical_measures_are_as_counted_by_hand():
    targets = one_hot([0, 0, 0, 2], 3)
    probs = np.array([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.2, 0.6]])
    measured = scheme_metrics(SENTIMENT, targets, probs)
    assert measured["n"] == 4
    assert measured["accuracy"] == pytest.approx(3 / 4)
    assert measured["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert measured["macro_f1"] == pytest.approx((0.8 + 0 + 2 / 3) / 3), "a label that never occurs counts as zero"
    assert measured["nll"] == pytest.approx(-np.log([0.8, 0.5, 0.1, 0.6]).mean())
    assert measured["brier"] == pytest.approx(np.mean([0.06, 0.38, 0.81 + 0.04 + 0.49, 0.24]))
    assert measured["ece"] == pytest.approx((0.2 + 0.5 + 0.7 + 0.4) / 4), "each image is alone in its bin"
    assert {"roc_auc", "wheel_distance", "wheel_accuracy"} & set(measured) == set()


def test_two_labels_have_an_area_under_the_curve():
    probs = np.array([0.1, 0.4, 0.35, 0.8])
    measured = scheme_metrics(POLARITY, one_hot([0, 0, 1, 1], 2), np.stack([1 - probs, probs], 1))
    assert measured["roc_auc"] == pytest.approx(0.75)


@pytest.mark.filterwarnings("error")
def test_one_class_alone_has_none():
    given = one_hot([0, 0], 2), np.array([[0.6, 0.4], [0.3, 0.7]])
    assert "roc_auc" not in scheme_metrics(POLARITY, *given)
    assert "roc_auc" not in confidence_intervals(POLARITY, *given)
    assert scheme_metrics(POLARITY, *given)["balanced_accuracy"] == 0.5


def test_a_probability_of_zero_costs_much_but_not_everything():
    assert 20 < scheme_metrics(POLARITY, one_hot([0, 1], 2), one_hot([1, 1], 2))["nll"] * 2 < 30


def test_the_label_written_is_what_counts_where_it_is_given():
    targets, probs = one_hot([0, 1], 2), np.array([[0.5, 0.5], [0.5, 0.5]])
    for choices, accuracy in (([0, 1], 1), ([1, 0], 0), ([0, 0], 0.5)):
        assert scheme_metrics(POLARITY, targets, probs, np.array(choices))["accuracy"] == accuracy
        assert confidence_intervals(POLARITY, targets, probs, np.array(choices))["accuracy"][1] >= accuracy


def test_a_neighbour_on_the_wheel_is_half_right():
    targets = one_hot([MIKELS.label_index(word) for word in ("awe", "awe", "awe", "awe")], 8)
    probs = one_hot([MIKELS.label_index(word) for word in ("awe", "contentment", "excitement", "disgust")], 8)
    measured = scheme_metrics(MIKELS, targets, probs)
    assert measured["accuracy"] == 0.25
    assert measured["wheel_distance"] == pytest.approx((0 + 1 + 1 + 4) / 4)
    assert measured["wheel_accuracy"] == pytest.approx((1 + 1 / 2 + 1 / 2 + 1 / 5) / 4)


@given(seed=SEEDS, count=st.integers(1, 60))
def test_calibration_error_is_the_mean_gap_of_its_bins(seed, count):
    labels, probs = drawn(EKMAN, count, seed)
    top, hit = probs.max(1), probs.argmax(1) == labels
    inside = [(low / 15 < top) & (top <= (low + 1) / 15) for low in range(15)]
    gaps = [rows.sum() / count * abs(hit[rows].mean() - top[rows].mean()) for rows in inside if rows.any()]
    targets = one_hot(labels, 6)
    assert scheme_metrics(EKMAN, targets, probs)["ece"] == pytest.approx(sum(gaps))
    counts, accuracy, confidence = reliability(targets, probs, probs.argmax(1))
    assert counts.tolist() == [rows.sum() for rows in inside]
    assert np.isnan(accuracy).tolist() == np.isnan(confidence).tolist() == [not rows.any() for rows in inside]
    assert np.nansum(counts / count * np.abs(accuracy - confidence)) == pytest.approx(sum(gaps))


@given(seed=SEEDS, count=st.integers(3, 40))
def test_ordinal_measures_are_those_of_the_expectations(seed, count):
    draw = np.random.default_rng(seed)
    targets, probs = draw.dirichlet(np.ones(9), count), draw.dirichlet(np.ones(9), count)
    wanted, given_ = targets @ np.arange(1, 10), probs @ np.arange(1, 10)
    measured = scheme_metrics(VALENCE, targets, probs)
    r = stats.pearsonr(wanted, given_).statistic
    concordance = 2 * r * wanted.std() * given_.std() / (wanted.var() + given_.var() + (wanted.mean() - given_.mean()) ** 2)
    assert measured["n"] == count
    assert measured["pearson_r"] == pytest.approx(r, abs=1e-6)
    assert measured["ccc"] == pytest.approx(concordance, abs=1e-6)
    assert measured["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(wanted, given_))
    assert measured["rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(wanted, given_))
    assert measured["mae_of_constant"] == pytest.approx(np.mean(np.abs(wanted - wanted.mean())))


@pytest.mark.parametrize("scheme", [POLARITY, SENTIMENT, MIKELS, VALENCE], ids=lambda scheme: scheme.name)
def test_perfect_predictions_measure_perfectly(scheme):
    count = len(scheme.labels)
    targets = one_hot(np.arange(3 * count) % count, count)
    best = {"accuracy": 1, "balanced_accuracy": 1, "macro_f1": 1, "roc_auc": 1, "nll": 0, "brier": 0, "ece": 0}
    best |= {"wheel_accuracy": 1, "wheel_distance": 0, "pearson_r": 1, "ccc": 1, "mae": 0, "rmse": 0}
    measured = scheme_metrics(scheme, targets, targets)
    checked = {name: value for name, value in measured.items() if name in best}
    assert len(checked) >= 4
    assert checked == pytest.approx({name: best[name] for name in checked})


@pytest.mark.filterwarnings("error")
def test_a_constant_prediction_correlates_with_nothing():
    targets, probs = one_hot([0, 4, 8], 9), np.tile(one_hot([4], 9), (3, 1))
    measured = scheme_metrics(VALENCE, targets, probs)
    assert measured["pearson_r"] == pytest.approx(0)
    assert measured["ccc"] == pytest.approx(0)
    assert measured["mae"] == pytest.approx(measured["mae_of_constant"]) == pytest.approx(8 / 3)
    assert np.isfinite(list(confidence_intervals(VALENCE, targets, probs).values())).all()


# Intervals


@pytest.mark.parametrize("scheme", [POLARITY, SENTIMENT, EKMAN, MIKELS, VALENCE], ids=lambda scheme: scheme.name)
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, count=st.integers(2, 30))
def test_any_selection_of_images_measures_as_if_it_were_all(scheme, seed, count):
    """The fast counting behind the intervals agrees with scikit-learn's functions on every resample."""
    labels, probs = drawn(scheme, count, seed)
    targets = one_hot(labels, len(scheme.labels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "RESAMPLES", 5)
        patch.setattr(metrics, "_percentile_interval", lambda samples: tuple(samples))
        samples = confidence_intervals(scheme, targets, probs)
    draw = np.random.default_rng(metrics.SEED)
    for i in range(5):
        selected = draw.integers(count, size=count)
        expected = scheme_metrics(scheme, targets[selected], probs[selected])
        for name, values in samples.items():
            if name == "roc_auc" and name not in expected:
                assert np.isnan(values[i])
            else:
                assert values[i] == pytest.approx(expected[name]), name
    assert set(samples) >= set(scheme_metrics(scheme, targets, probs)) - {"n", "mae_of_constant"}


@pytest.mark.parametrize("scheme", [POLARITY, MIKELS, VALENCE], ids=lambda scheme: scheme.name)
def test_an_interval_holds_its_measure_is_the_same_each_time_and_narrower_with_more_images(scheme):
    widths = []
    for count in (100, 1600):
        labels, probs = drawn(scheme, count, 7)
        targets = one_hot(labels, len(scheme.labels))
        measured, found = scheme_metrics(scheme, targets, probs), confidence_intervals(scheme, targets, probs)
        assert found == confidence_intervals(scheme, targets, probs)
        assert all(low <= measured[name] <= high for name, (low, high) in found.items() if name != "ece")
        widths.append({name: high - low for name, (low, high) in found.items()})
    assert all(0.15 < widths[1][name] / widths[0][name] < 0.4 for name in widths[0] if name != "ece"), "a quarter, roughly"


def test_the_interval_of_an_accuracy_is_that_of_a_share():
    hits = np.arange(400) % 4 > 0
    low, high = confidence_intervals(POLARITY, one_hot(hits.astype(int), 2), one_hot(np.ones(400, int), 2))["accuracy"]
    assert (low, high) == pytest.approx(share_interval(300, 400), abs=0.01)


def test_the_interval_of_a_share_has_some_width_where_nothing_was_counted():
    assert share_interval(0, 100) == pytest.approx((0, 0.037), abs=1e-3)
    assert share_interval(100, 100) == pytest.approx((0.963, 1), abs=1e-3)


# Tables


def test_confusion_has_labels_in_rows_and_what_was_written_in_columns():
    table = confusion(SENTIMENT, one_hot([0, 0, 2, 2, 2], 3), np.array([0, 2, 2, 2, 0]))
    assert table.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 2]]


def written(**labels: list[str]) -> Prediction:
    """A prediction with these labels written, by scheme."""
    template = Template.of(*labels)
    choices = {s.name: np.array([s.label_index(word) for word in labels[s.name]]) for s in template.schemes}
    return Prediction(template, {}, choices)


def test_labels_of_opposite_polarity_contradict_each_other():
    found = contradictions(
        written(
            polarity2=["positive", "positive", "negative", "negative"],
            ekman6=["joy", "fear", "surprise", "joy"],
            valence=["pleasant", "neutral", "very unpleasant", "slightly pleasant"],
            arousal=["calm"] * 4,
        )
    )
    counted = {pair: measured["contradictions"] for pair, measured in found.items()}
    assert counted == {"polarity2 and ekman6": 2, "polarity2 and valence": 1, "ekman6 and valence": 0, "any": 2}
    assert found["polarity2 and valence"]["share"] == 0.25
    low, high = found["polarity2 and valence"]["interval"]["share"]
    assert 0 < low < 0.25 < high < 1


def test_what_has_no_polarity_of_both_kinds_contradicts_nothing():
    assert contradictions(written(polarity2=["positive"], arousal=["calm"])) == {}
    assert contradictions(written(valence=["pleasant"])) == {}


def test_a_single_pair_needs_no_sum():
    assert list(contradictions(written(polarity2=["positive"], polarity3=["negative"]))) == ["polarity2 and polarity3"]


def test_every_bundled_scheme_is_measured():
    for name in bundled_schemes():
        scheme = load_scheme(name)
        labels, probs = drawn(scheme, 20, 3)
        measured = scheme_metrics(scheme, one_hot(labels, len(scheme.labels)), probs)
        assert measured["n"] == 20
        assert ("wheel_accuracy" in measured) == (scheme.wheel is not None)
