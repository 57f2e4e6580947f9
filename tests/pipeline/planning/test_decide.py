"""What is decided of an image follows from all rows with its ID, in whatever order they come."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.planning.decide import ANNOTATED, FAILED, NAMED, Outcome, decide, place_of


def decided(*rows):
    """Decide on rows (image_id, rest, place, suppressed), in some orders. Return what is told, by place, and the counts."""
    found = set()
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(rows))
        columns = zip(*(rows[i] for i in order), strict=True) if rows else [()] * 4
        table = decide(pa.table([pa.array(values, kind) for values, kind in zip(columns, NAMED.types, strict=True)], NAMED))
        told = sorted((row["place"], row["image_id"], row["outcome"]) for row in table.to_pylist() if row["place"] is not None)
        found.add((tuple(told), tuple((row["outcome"], row["count"]) for row in table.to_pylist() if row["place"] is None)))
    (one,) = found
    return one


@pytest.mark.parametrize(
    ("before", "outcome"),
    [
        ([], Outcome.NEW),
        ([FAILED], Outcome.RETRIED),
        ([FAILED, FAILED], Outcome.RETRIED),
        ([ANNOTATED], Outcome.KNOWN),
        ([ANNOTATED, FAILED, ANNOTATED], Outcome.KNOWN),
    ],
)
def test_an_image_is_new_retried_or_known_by_what_earlier_runs_have_of_it(before, outcome):
    told, counts = decided((7, 1, 20, False), *((7, None, place, None) for place in before), (8, None, ANNOTATED, None))
    assert (told, counts) == (((20, 7, outcome),), ()) if outcome != Outcome.KNOWN else ((), ((Outcome.KNOWN, 1),))


def test_of_an_image_that_is_listed_often_the_first_counts():
    told, counts = decided((7, 1, 20, False), (7, 1, 5, False), (7, 1, 9, False), (3, 1, 6, False))
    assert told == ((5, 7, Outcome.NEW), (6, 3, Outcome.NEW))
    assert counts == ()


def test_other_images_with_its_id_are_told_each_time_they_are_listed():
    told, counts = decided((7, 2, 20, False), (7, 1, 5, False), (7, 3, 9, False), (7, 2, 30, False), (7, None, ANNOTATED, None))
    assert told == ((9, 7, Outcome.COLLIDED), (20, 7, Outcome.COLLIDED), (30, 7, Outcome.COLLIDED))
    assert counts == ((Outcome.KNOWN, 1),)


def test_a_suppressed_image_is_counted_once_whether_it_is_known_or_not():
    told, counts = decided((7, 1, 20, True), (7, 1, 21, True), (8, 1, 22, True), (8, None, ANNOTATED, None), (9, 1, 23, False))
    assert told == ((23, 9, Outcome.NEW),)
    assert counts == ((Outcome.SUPPRESSED, 2),)


def test_images_that_are_not_listed_are_nothing():
    assert decided((7, None, ANNOTATED, None), (8, None, FAILED, None)) == ((), ())
    assert decided() == ((), ())


def test_places_are_in_the_order_of_parts_and_their_rows():
    places = [int(place_of(part, row)) for part in (0, 1, 2, 70_000) for row in (0, 1, 2**18)]
    assert places == sorted(set(places))
    assert places[0] > max(ANNOTATED, FAILED)
