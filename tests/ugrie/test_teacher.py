"""The teacher's soft labels are probabilities, told without the image and its group, and better than the labels it was given."""

import numpy as np
import pytest

from ugrie.data import Labelled
from ugrie.teacher import teach


def labelled(images: int, noise: float, seed: int = 0, copies: int = 1) -> tuple[Labelled, np.ndarray]:
    """Two clusters of embeddings, a label each, and a share of labels that are wrong. Also the labels before the noise."""
    draw = np.random.default_rng(seed)
    truth = np.arange(images) % 2
    centres = draw.normal(size=(2, 8))
    embeddings = (centres[truth] + 0.3 * draw.normal(size=(images, 8))).astype(np.float32)
    given = np.where(draw.random(images) < noise, 1 - truth, truth)
    rows = np.repeat(np.arange(images), copies)
    targets = {"mood": np.eye(2, dtype=np.float32)[given][rows]}
    return Labelled(embeddings[rows], targets, rows.astype(str), np.ones(len(rows), np.int64)), truth[rows]


def test_the_teacher_sees_through_wrong_labels():
    data, truth = labelled(200, noise=0.2)
    taught = teach(data).targets["mood"]
    assert (data.targets["mood"].argmax(1) == truth).mean() < 0.9
    assert (taught.argmax(1) == truth).mean() > 0.95


def test_soft_labels_are_probabilities_and_everything_else_stays():
    data, _ = labelled(60, noise=0.2)
    taught = teach(data)
    np.testing.assert_allclose(taught.targets["mood"].sum(1), 1, rtol=1e-6)
    assert taught.targets["mood"].min() > 0
    for field in ("embeddings", "groups", "repeats"):
        assert getattr(taught, field) is getattr(data, field)


def test_an_image_without_a_label_gets_none():
    data, _ = labelled(60, noise=0.0)
    data.targets["mood"][::3] = 0
    taught = teach(data).targets["mood"]
    assert not taught[::3].any()
    assert taught[1::3].any(1).all()


def test_a_copy_of_an_image_does_not_tell_its_label():
    """With random labels nothing can be known, unless from the copy, which is of the same group."""
    data, _ = labelled(80, noise=0.5, copies=2)
    taught = teach(data).targets["mood"]
    assert (taught.argmax(1) == data.targets["mood"].argmax(1)).mean() < 0.7


@pytest.mark.parametrize("images", [1, 6])
def test_a_scheme_of_one_group_keeps_its_labels(images):
    data, _ = labelled(6, noise=0.0)
    only = data.take(np.arange(images))
    one = Labelled(only.embeddings, only.targets, np.full(images, "beach"), only.repeats)
    np.testing.assert_array_equal(teach(one).targets["mood"], one.targets["mood"])
