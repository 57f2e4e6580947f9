"""Training predictions are out-of-fold by group, and the mapper computes the same function for new images."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.gaussian_process.kernels import Matern
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict

from ugrie.model.mapper import LENGTH, Mapper
from ugrie.schemes.scheme import load_scheme
from ugrie.training import kernel_ridge
from ugrie.training.kernel_ridge import ALPHAS, FOLDS, Regression, fit_regression, held_out_folds, landmarks_for, scaled_outputs

POLARITY, VALENCE = load_scheme("polarity2"), load_scheme("valence")
SCHEMES = [POLARITY, VALENCE]


def clusters(images: int, noise: float, copies: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Components of two clusters with a label each, the labels after a share `noise` of them is flipped, and the true labels."""
    draw = np.random.default_rng(seed)
    truth = np.arange(images) % 2
    components = draw.normal(size=(2, 8))[truth] + 0.3 * draw.normal(size=(images, 8))
    components /= np.sqrt((components**2).sum(1).mean())
    given = np.where(draw.random(images) < noise, 1 - truth, truth)
    rows = np.repeat(np.arange(images), copies)
    return components[rows], np.eye(2, dtype=np.float32)[given][rows], truth[rows]


def regressed(components: np.ndarray, labels: np.ndarray, copies: int = 1, landmarks: int = 500) -> Regression:
    groups = np.repeat(np.arange(len(labels) // copies), copies).astype(str)
    return fit_regression(components, {"polarity2": labels}, [POLARITY], groups, landmarks)


def applied(regression: Regression, components: np.ndarray) -> np.ndarray:
    """The regression as a mapper computes it from these components."""
    mapper = Mapper(components.shape[1], components.shape[1], 500, len(regression.bias), 2, 1, 4, 4)
    mapper.set_regression(*(torch.from_numpy(v).float() for v in (regression.landmarks, regression.weights, regression.bias)))
    mapper.components = lambda given: given
    return mapper.answers(torch.from_numpy(components).float()).numpy()


def test_wrong_labels_are_seen_through():
    components, labels, truth = clusters(200, noise=0.2)
    assert (labels.argmax(1) == truth).mean() < 0.9
    assert (regressed(components, labels).predictions.argmax(1) == truth).mean() > 0.95


@pytest.mark.parametrize("landmarks", [500, 40])
def test_the_mapper_gives_the_same_answers_for_new_images(landmarks):
    components, labels, truth = clusters(200, noise=0.1)
    regression = regressed(components[:100], labels[:100], landmarks=landmarks)
    assert 0.7 * min(landmarks, 100) < len(regression.landmarks) <= landmarks
    new = applied(regression, components[100:])
    assert (new.argmax(1) == truth[100:]).mean() > 0.95
    assert new.std() == pytest.approx(regression.predictions.std(), rel=0.3)


def test_a_copy_of_an_image_does_not_tell_its_label():
    """Random labels can be predicted from the image's copy alone, and that is of the same group."""
    components, labels, _ = clusters(120, noise=0.5, copies=2)
    regression = regressed(components, labels, copies=2)
    assert not regression.in_sample
    predictions = regression.predictions
    assert (predictions.argmax(1) == labels.argmax(1)).mean() < 0.7


@pytest.mark.parametrize(("images", "in_sample"), [(2, True), (78, True), (80, False)])
def test_of_few_images_each_is_told_by_itself(images, in_sample):
    components, labels, _ = clusters(images, noise=0.3)
    regression = regressed(components, labels)
    assert regression.in_sample == in_sample
    difference = np.abs(regression.predictions - applied(regression, components)).max()
    assert difference < 0.05 if in_sample else difference > 0.1


def test_an_image_without_a_label_is_answered_as_a_new_one():
    components, labels, truth = clusters(180, noise=0.0)
    labels[::3] = 0
    predictions = regressed(components, labels).predictions
    np.testing.assert_allclose(predictions[::3], applied(regressed(components, labels), components)[::3], atol=1e-4)
    assert (predictions[::3].argmax(1) == truth[::3]).mean() > 0.95


def test_an_ordinal_scheme_is_answered_with_its_value_in_standard_deviations():
    draw = np.random.default_rng(0)
    components = draw.normal(size=(300, 4)) / 2
    levels = np.clip(np.round(5 + 3 * components[:, 0]), 1, 9).astype(int)
    targets = {"polarity2": np.zeros((300, 2), np.float32), "valence": np.eye(9, dtype=np.float32)[levels - 1]}
    regression = fit_regression(components, targets, [POLARITY, VALENCE], np.arange(300).astype(str), 300)
    assert regression.predictions.shape == (300, 3)
    assert not regression.predictions[:, :2].any(), "no image has a label for polarity2"
    stated = (levels - levels.mean()) / levels.std()
    assert np.corrcoef(regression.predictions[:, 2], stated)[0, 1] > 0.9
    assert np.abs(regression.predictions[:, 2] - stated).mean() < 0.4


@pytest.mark.parametrize(("images", "middle"), [(40, False), (400, True)])
def test_a_landmark_is_the_middle_of_several_images_where_there_are_many(images, middle):
    components, labels, truth = clusters(images, noise=0.0)
    components /= np.linalg.norm(components, axis=1, keepdims=True)
    landmarks = regressed(components, labels).landmarks
    distances = np.linalg.norm(landmarks[:, None] - components[None], axis=2)
    assert (distances.min(1) > 1e-3).all() == middle
    assert set(truth[distances.argmin(1)]) == {0, 1}
    np.testing.assert_allclose(np.linalg.norm(landmarks, axis=1), 1, rtol=1e-6)


def rated(images: int, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Components of unit length, labels of two schemes for most of them, and ratings for fewer."""
    draw = np.random.default_rng(seed)
    components = draw.normal(size=(images, 12)).astype(np.float32)
    components /= np.linalg.norm(components, axis=1, keepdims=True)
    score = np.tanh(3 * components[:, 0]) + components[:, 1] * components[:, 2] + 0.3 * draw.normal(size=images)
    polarity = np.eye(2, dtype=np.float32)[(score > 0).astype(int)]
    valence = np.eye(9, dtype=np.float32)[np.clip(np.rint(4 + 3 * score), 0, 8).astype(int)]
    polarity[::11] = 0
    valence[::3] = 0
    return components, {"polarity2": polarity, "valence": valence}


def sklearn_predictions(components: np.ndarray, targets: dict, groups: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The training predictions as scikit-learn alone makes them from the same landmarks and folds."""
    features = Nystroem(Matern(LENGTH, nu=0.5), n_components=len(landmarks)).fit(landmarks).transform(components)
    parts = []
    for scheme in SCHEMES:
        has_label = targets[scheme.name].any(1)
        outputs = scaled_outputs(scheme, targets[scheme.name])
        folds = held_out_folds(scheme, targets[scheme.name], groups)[has_label]
        splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(FOLDS)]
        given, wanted = features[has_label], outputs[has_label]
        by_alpha = {alpha: cross_val_predict(Ridge(alpha), given, wanted, cv=splits).reshape(wanted.shape) for alpha in ALPHAS}
        best = min(ALPHAS, key=lambda alpha: ((by_alpha[alpha] - wanted) ** 2).sum())
        predictions = Ridge(best).fit(given, wanted).predict(features).reshape(outputs.shape)
        predictions[has_label] = by_alpha[best]
        parts.append(predictions)
    return np.concatenate(parts, 1)


@pytest.mark.parametrize(("images", "landmarks", "block"), [(700, 200, 64), (460, 460, 2048), (460, 40, 100)])
def test_predictions_are_those_of_scikit_learn(images, landmarks, block, monkeypatch):
    monkeypatch.setattr(kernel_ridge, "BLOCK", block)
    components, targets = rated(images)
    groups = (np.arange(images) // 2).astype(str)
    regression = fit_regression(components, targets, SCHEMES, groups, landmarks)
    assert not regression.in_sample
    expected = sklearn_predictions(components, targets, groups, regression.landmarks)
    assert expected.std(0).min() > 0.3
    np.testing.assert_allclose(regression.predictions, expected, atol=1e-6)


def test_weights_and_bias_are_those_of_scikit_learn():
    components, targets = rated(500)
    targets.pop("valence")
    groups, new = np.arange(500).astype(str), rated(50, seed=1)[0]
    fitted = fit_regression(components, targets, [POLARITY], groups, 60)
    nystroem = Nystroem(Matern(LENGTH, nu=0.5), n_components=len(fitted.landmarks)).fit(fitted.landmarks)
    has_label = targets["polarity2"].any(1)
    outputs = scaled_outputs(POLARITY, targets["polarity2"])[has_label]
    ours = Matern(LENGTH, nu=0.5)(new.astype(float), fitted.landmarks) @ fitted.weights + fitted.bias
    differences = [
        np.abs(Ridge(alpha).fit(nystroem.transform(components[has_label]), outputs).predict(nystroem.transform(new)) - ours).max()
        for alpha in ALPHAS
    ]
    assert min(differences) < 1e-6 < sorted(differences)[1]


def test_landmarks_that_are_the_same_count_once():
    """Copies of few images: their kernel would have no inverse."""
    components, targets = rated(300)
    rows = np.tile(np.arange(30), 10)
    targets = {name: target[rows] for name, target in targets.items()}
    regression = fit_regression(components[rows], targets, SCHEMES, np.arange(300).astype(str), 300)
    assert len(regression.landmarks) == 29, "one of the images has no label"
    assert np.abs(regression.weights).max() < 100
    assert np.abs(regression.predictions).max() < 5


def test_folds_are_stratified_and_keep_groups_whole():
    _, targets = rated(700)
    groups = (np.arange(700) // 2).astype(str)
    folds = held_out_folds(POLARITY, targets["polarity2"], groups)
    has_label = targets["polarity2"].any(1)
    assert ((folds >= 0) == has_label).all()
    assert set(folds[has_label]) == set(range(FOLDS))
    both = has_label[::2] & has_label[1::2]
    assert (folds[::2] == folds[1::2])[both].all()
    shares = np.array([targets["polarity2"][folds == fold, 0].mean() for fold in range(FOLDS)])
    assert np.ptp(shares) < 0.05


def test_schemes_of_the_same_images_share_folds_where_there_are_many(monkeypatch):
    """Then their regressions share the moments, too."""
    draw = np.random.default_rng(0)
    targets = {"polarity2": np.eye(2, dtype=np.float32)[draw.integers(0, 2, 500)], "valence": np.eye(9)[draw.integers(0, 9, 500)]}
    groups = np.arange(500).astype(str)
    assert len(kernel_ridge._by_folds(SCHEMES, targets, groups)) == 2
    monkeypatch.setattr(kernel_ridge, "STRATIFIED", 499)
    ((folds, sharing),) = kernel_ridge._by_folds(SCHEMES, targets, groups)
    assert sharing == SCHEMES
    assert (np.bincount(folds) == 50).all()
    targets["valence"][0] = 0
    assert len(kernel_ridge._by_folds(SCHEMES, targets, groups)) == 2


def test_memory_does_not_grow_with_landmarks_times_images(monkeypatch):
    monkeypatch.setattr(kernel_ridge, "BLOCK", 100)
    monkeypatch.setattr(kernel_ridge, "STRATIFIED", 0)
    components, targets = rated(3000)
    groups = np.arange(3000).astype(str)
    tracemalloc.start()
    fit_regression(components, targets, SCHEMES, groups, 200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    features, moments = 3000 * 200 * 8, FOLDS * 203 * 203 * 8
    assert peak < moments + features


@pytest.mark.parametrize(
    ("images", "landmarks"), [(0, 700), (1, 700), (1386, 700), (3768, 700), (16_000, 1224), (118_102, 4000), (10**7, 4000)]
)
def test_landmarks_grow_with_the_images_within_bounds(images, landmarks):
    assert landmarks_for(images) == pytest.approx(landmarks, abs=10)


def test_neighbours_are_found_for_the_landmarks_alone(monkeypatch):
    """With many images, the others' would take most of the time."""
    asked = []

    class Counting(kernel_ridge.NearestNeighbors):
        def kneighbors(self, points, **named):
            asked.append(len(points))
            return super().kneighbors(points, **named)

    monkeypatch.setattr(kernel_ridge, "NearestNeighbors", Counting)
    components, targets = rated(500)
    fit_regression(components, targets, SCHEMES, np.arange(500).astype(str), 30)
    assert asked == [30]
