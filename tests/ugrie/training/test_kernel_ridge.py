"""Training predictions are out-of-fold by group, and the mapper computes the same function for new images."""

import numpy as np
import pytest
import torch

from ugrie.model.mapper import Mapper
from ugrie.schemes.scheme import load_scheme
from ugrie.training.kernel_ridge import Regression, fit_regression

POLARITY, VALENCE = load_scheme("polarity2"), load_scheme("valence")


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
    mapper = Mapper(components.shape[1], components.shape[1], 500, len(regression.bias), 1, 4, 4)
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
    assert regression.landmarks.shape == (min(landmarks, 100), 8)
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


@pytest.mark.parametrize(("images", "in_sample"), [(2, True), (98, True), (100, False)])
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
