"""Which images a page shows: the surest and the most doubtful of each label, and an ordinal scheme's extremes."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.report import highlights
from pipeline.report.highlights import Pick, Shelf, arranged, merged, picks_of
from pipeline.table.schema import SchemeMetadata

MOOD = SchemeMetadata("categorical", ["bad", "good"])
FEELING = SchemeMetadata("ordinal", ["low", "middle", "high"], values=[1, 2, 3], range=[1, 3])


def table(hashes):
    n = len(hashes)
    return pa.table({"uri": [f"s3://b/{i}.jpg" for i in range(n)], "content_hash": list(hashes), "row": range(100, 100 + n)})


def picked(about, probs, hashes=None):
    probs = np.array(probs, np.float32)
    choices = probs.argmax(1)
    return picks_of(table(hashes or "abcdefghij"[: len(probs)]), {"s": about}, {"s": probs}, {"s": choices}, run=2)


def places(found, *shelf):
    return [pick.row - 100 for pick in found[Shelf("s", *shelf)]]


def test_the_surest_and_the_most_doubtful_of_each_label():
    found = picked(MOOD, [[0.4, 0.6], [0.9, 0.1], [0.01, 0.99], [0.2, 0.8]])
    assert places(found, "good", "surest") == [2, 3, 0]
    assert places(found, "good", "most doubtful") == [0, 3, 2]
    assert places(found, "bad", "surest") == [1]
    assert found[Shelf("s", "good", "surest")][0] == Pick(pytest.approx(-0.99), "99.0 %", "s3://b/2.jpg", "c", 102, 2)


def test_of_an_ordinal_scheme_the_extremes_and_the_widest_spread():
    found = picked(FEELING, [[1, 0, 0], [0, 1, 0], [0, 0.2, 0.8], [0.5, 0, 0.5]])
    assert places(found, None, "highest")[0] == 2
    assert places(found, None, "lowest")[0] == 0
    doubtful = found[Shelf("s", None, "most doubtful")][0]
    assert (doubtful.row, doubtful.shown) == (103, "2.00 ± 1.00")


def test_the_same_bytes_are_shown_once():
    found = picked(MOOD, [[0, 1], [0, 1], [0.1, 0.9], [0, 1]], hashes="aaba")
    assert places(found, "good", "surest") == [0, 2]
    again = Pick(-2.0, "", "s3://b/copy.jpg", "a", 7, 3)
    assert [pick.content_hash for pick in merged(found[Shelf("s", "good", "surest")], [again])] == ["a", "b"]
    assert merged(found[Shelf("s", "good", "surest")], [again])[0].uri == "s3://b/copy.jpg", "the better of the two"


def test_a_shelf_holds_no_more_than_it_has_room_for():
    found = picked(MOOD, np.tile([0.0, 1.0], (10, 1)))
    assert len(found[Shelf("s", "good", "surest")]) == highlights.MOST_EACH


def pick(n):
    return Pick(n, "", f"{n}", f"{n}", n, 0)


def test_a_page_of_few_shelves_has_several_images_on_each():
    shelf, empty = Shelf("s", "good", "surest"), Shelf("s", "bad", "surest")
    assert arranged({shelf: [pick(i) for i in range(4)], empty: []}, {"s": {"good": 4, "bad": 0}}) == {shelf: [pick(i) for i in range(4)]}


def test_a_page_of_many_schemes_has_room_for_their_commonest_labels():
    some = {
        Shelf(f"s{i}", f"l{j}", what): [pick(k) for k in range(4)] for i in range(15) for j in range(25) for what in ("surest", "doubtful")
    }
    found = arranged(some, {f"s{i}": {f"l{j}": j for j in range(25)} for i in range(15)})
    assert {shelf.label for shelf in found} == {"l23", "l24"}
    assert {shelf.scheme for shelf in found} == {f"s{i}" for i in range(15)}
    assert sum(map(len, found.values())) == highlights.MOST_IMAGES
