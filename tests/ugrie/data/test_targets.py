"""Targets are distributions whose expectation is the rating; a value that is not a label or a number is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ugrie.data.format import Column
from ugrie.data.table import DataError
from ugrie.data.targets import distribution, normalized, over_levels, rescale, target
from ugrie.schemes.scheme import load_scheme

POLARITY, SENTIMENT, EKMAN, VALENCE = (load_scheme(name) for name in ("polarity2", "polarity3", "ekman6", "valence"))
LEVELS = tuple(map(float, range(1, 10)))


@given(value=st.floats(1, 9))
def test_a_rating_is_on_the_levels_beside_it_and_is_their_expectation(value):
    shares = over_levels(value, LEVELS)
    assert shares.sum() == pytest.approx(1, abs=1e-6)
    assert (shares >= 0).all()
    assert shares @ np.array(LEVELS) == pytest.approx(value, abs=1e-5)
    assert all(abs(level - value) < 1 for level, share in zip(LEVELS, shares, strict=True) if share > 0)


def test_levels_need_not_be_even():
    assert over_levels(4, (0, 1, 5)).tolist() == [0, 0.25, 0.75]


@given(value=st.floats(1, 7))
def test_a_rating_on_another_scale_keeps_its_place(value):
    assert (rescale(value, (1, 7), (1, 9)) - 1) / 8 == pytest.approx((value - 1) / 6)


def test_a_rating_outside_its_scale_is_refused():
    with pytest.raises(DataError, match=r"a rating of 7.5 is outside its scale \[1, 7\]"):
        rescale(7.5, (1, 7), (1, 9))


def test_names_synonyms_and_any_case_are_labels():
    shares = target(EKMAN, Column(), np.array(["joy", "Happy", "FEAR"]))
    assert shares.argmax(1).tolist() == [3, 3, 2]
    assert shares.sum(1).tolist() == [1, 1, 1]
    assert shares.dtype == np.float32


def test_empty_left_out_and_missing_values_are_no_label():
    shares = target(SENTIMENT, Column(leave_out=("mixed",)), np.array(["positive", "", "mixed"]))
    assert shares.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert not target(VALENCE, Column(), np.array([np.nan], np.float32)).any()


def test_cuts_make_classes_of_numbers():
    shares = target(SENTIMENT, Column(cuts=(3.5, 4.5)), np.array(["1", "3.49", "3.5", "4", "4.5", "7", ""]))
    assert shares.argmax(1).tolist() == [0, 0, 1, 1, 2, 2, 0]
    assert not shares[-1].any()


def test_ratings_are_read_on_their_own_scale():
    shares = target(VALENCE, Column(range=(1, 7)), np.array(["1", "4", "7", "2.5"]))
    np.testing.assert_allclose(shares @ np.array(VALENCE.values), [1, 5, 9, 3])
    np.testing.assert_allclose(target(VALENCE, Column(), np.array([5.5])) @ np.array(VALENCE.values), [5.5])


def test_codes_are_read_as_the_labels_they_stand_for():
    column = Column(codes={"0": "negative", "1": "good"}, leave_out=("9",))
    for values in (np.array([0, 1, 9]), np.array([0.0, 1.0, np.nan]), np.array(["0", "1", "9"]), np.array(["negative", "1", ""])):
        assert target(POLARITY, column, values).tolist() == [[1, 0], [0, 1], [0, 0]]
    with pytest.raises(DataError, match="'2' is not a label of polarity2"):
        target(POLARITY, column, np.array([2]))


@pytest.mark.parametrize(
    ("word", "message"), [("high", "'high' is not a number"), ("nan", "'nan' is not a finite number"), ("inf", "'inf' is")]
)
@pytest.mark.parametrize("column", [Column(), Column(cuts=tuple(range(8)))])
def test_a_word_where_a_number_should_be_is_named(word, message, column):
    with pytest.raises(DataError, match=message):
        target(VALENCE, column, np.array([word]))


@given(votes=st.lists(st.lists(st.integers(0, 20), min_size=6, max_size=6), min_size=1, max_size=5))
def test_votes_become_their_shares(votes):
    counts = np.array(votes)
    shares = distribution(EKMAN, dict(zip(EKMAN.label_names, counts.T.astype(str), strict=True)))
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares * counts.sum(1, keepdims=True), counts, atol=1e-4)
    assert (shares.any(1) == counts.any(1)).all()


def test_labels_of_a_distribution_may_be_synonyms_and_empty_cells_are_no_votes():
    shares = distribution(EKMAN, {"happy": np.array(["1", "", "0"]), "joy": np.array(["1", "", "0"]), "fear": np.array(["2", "3", ""])})
    assert shares[:, [2, 3]].tolist() == [[0.5, 0.5], [1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"fear": ["1"], "angr": ["2"]}, r"'angr' is not a label of ekman6 \(did you mean 'angry'\?\)"),
        ({"fear": ["few"]}, "'few' is not a number"),
        ({"fear": ["-1"]}, "-1 votes for fear"),
    ],
)
def test_what_is_no_distribution_is_named(columns, message):
    with pytest.raises(DataError, match=message):
        distribution(EKMAN, {label: np.array(values) for label, values in columns.items()})


def test_a_row_of_zeros_stays_one():
    assert normalized(np.array([[1.0, 3.0], [0.0, 0.0]])).tolist() == [[0.25, 0.75], [0, 0]]
