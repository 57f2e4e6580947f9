"""The split, batches, templates and mixup: groups stay together, repeats are kept, templates state only schemes with labels."""

import numpy as np
import pytest

from ugrie.data.labelled import DataError, Labelled
from ugrie.schemes.scheme import load_scheme
from ugrie.training.batches import batches, draw_template, mixup, split

POLARITY, VALENCE = load_scheme("polarity2"), load_scheme("valence")


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_straddle_the_split(seed, signal):
    draw = np.random.default_rng(seed)
    data = signal(200)
    data = Labelled(data.embeddings, data.targets, draw.integers(0, 20, 200).astype(str), data.repeats, data.sets)
    inside, outside = split(data, 0.25, draw)
    assert sorted([*inside, *outside]) == list(range(200))
    assert set(data.groups[inside]).isdisjoint(data.groups[outside])
    assert len(set(data.groups[outside])) == 5


@pytest.mark.parametrize(("share", "held_out"), [(0.01, 1), (0.99, 2)])
def test_something_is_always_held_out_and_something_left(signal, share, held_out):
    _, outside = split(signal(3), share, np.random.default_rng(0))
    assert len(outside) == held_out


def test_images_of_one_group_cannot_be_split(signal):
    data = signal(3)
    with pytest.raises(DataError, match="all 3 images with labels are of one group, a:beach: none would be left to train on; add labelled"):
        split(Labelled(data.embeddings, data.targets, np.full(3, "a:beach"), data.repeats, data.sets), 0.2, np.random.default_rng(0))


def test_images_without_a_label_are_not_held_out(signal):
    data = signal(100)
    for target in data.targets.values():
        target[10:] = 0
    inside, outside = split(data, 0.3, np.random.default_rng(0))
    assert set(range(10, 100)) < set(inside)
    assert len(outside) == 3


@pytest.fixture
def partly_labelled(signal) -> Labelled:
    """Images with both labels, with one of them, and with none."""
    data = signal(40)
    data.targets["polarity2"][10:20] = 0
    data.targets["valence"][20:30] = 0
    for target in data.targets.values():
        target[30:] = 0
    return Labelled(data.embeddings, data.targets, data.groups, np.where(np.arange(40) < 5, 3, 1), data.sets)


def test_every_labelled_image_is_seen_as_often_as_it_is_said(partly_labelled):
    rows = np.concatenate(batches(partly_labelled, [POLARITY, VALENCE], 4, np.random.default_rng(0)))
    assert np.bincount(rows, minlength=40).tolist() == [3] * 5 + [1] * 25 + [0] * 10


def test_the_images_of_a_batch_have_labels_for_the_same_schemes(partly_labelled):
    data = partly_labelled
    parts = batches(data, [POLARITY, VALENCE], 4, np.random.default_rng(0))
    assert max(map(len, parts)) == 4
    for rows in parts:
        for target in data.targets.values():
            assert len(set(target[rows].any(1))) == 1


def test_templates_drawn_state_what_an_image_has_labels_for_in_any_order(partly_labelled):
    data, draw = partly_labelled, np.random.default_rng(0)
    orders = {tuple(s.name for s in draw_template(data, [POLARITY, VALENCE], 0, draw).schemes) for _ in range(100)}
    assert orders == {("polarity2",), ("valence",), ("polarity2", "valence"), ("valence", "polarity2")}
    assert {draw_template(data, [POLARITY, VALENCE], 12, draw).schemes for _ in range(20)} == {(VALENCE,)}


def test_mixing_blends_an_images_answers_and_its_labels_by_the_same_share():
    answers = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    mixed, targets = mixup(answers, {"tag": np.eye(50, dtype=np.float32)}, 0.4, np.random.default_rng(0))
    np.testing.assert_allclose(targets["tag"].sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(targets["tag"] @ answers, mixed, atol=1e-5)
    assert (np.count_nonzero(targets["tag"], axis=1) == 2).mean() > 0.8


def test_without_mixing_nothing_is_blended():
    answers, targets = np.zeros((5, 3), np.float32), {"tag": np.eye(5, dtype=np.float32)}
    assert mixup(answers, targets, 0.0, np.random.default_rng(0)) == (answers, targets)


def test_answers_that_know_their_label_are_blended_with_the_mean(signal):
    """Plain blends lie between two images; blends with the mean lie between all of them."""
    answers = np.eye(3, dtype=np.float32)[np.arange(300) % 3]
    labels = {"kind": answers}
    plain, _ = mixup(answers, labels, 1.0, np.random.default_rng(0))
    blended, targets = mixup(answers, labels, 1.0, np.random.default_rng(0), in_sample=True)
    assert (plain == 0).any(1).all()
    assert (blended > 0).all()
    np.testing.assert_allclose(blended, targets["kind"])
    np.testing.assert_allclose(blended.sum(1), 1, rtol=1e-5)
