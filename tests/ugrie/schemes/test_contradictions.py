"""Contradicting labels of one image. tests/ugrie/evaluation/test_metrics.py has more tests of them."""

import numpy as np

from ugrie.schemes.contradictions import contradicting

TWO, THREE = ["negative", "positive"], ["negative", "neutral", "positive"]


def found(polarities, **choices):
    return {pair: images.tolist() for pair, images in contradicting(polarities, {k: np.array(v) for k, v in choices.items()}).items()}


def test_labels_of_opposite_polarity_contradict_each_other():
    assert found({"a": TWO, "b": THREE}, a=[0, 0, 1, 1], b=[2, 1, 0, 2]) == {"a and b": [True, False, True, False]}


def test_of_several_pairs_any_is_counted_as_well():
    pairs = found({"a": TWO, "b": THREE, "c": [None, *TWO]}, a=[0, 1], b=[0, 1], c=[2, 0])
    assert pairs == {"a and b": [False, False], "a and c": [True, False], "b and c": [True, False], "any": [True, False]}


def test_what_has_no_polarity_of_both_kinds_contradicts_nothing():
    assert found({"a": TWO, "calm": [None, "positive"]}, a=[0], calm=[1]) == {}
    assert found({}) == {}
