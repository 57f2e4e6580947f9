"""The images that a page shows: the most and least confident of each label, and an ordinal scheme's extremes."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.report import highlights
from pipeline.report.highlights import Highlight, HighlightGroup, find_highlights, merge, select
from pipeline.table.schema import SchemeMetadata

MOOD = SchemeMetadata("categorical", ["bad", "good"])
FEELING = SchemeMetadata("ordinal", ["low", "middle", "high"], values=[1, 2, 3], range=[1, 3])


def table(hashes):
    n = len(hashes)
    return pa.table({"uri": [f"s3://b/{i}.jpg" for i in range(n)], "content_hash": list(hashes), "row": range(100, 100 + n)})


def find(scheme, probs, hashes=None):
    probs = np.array(probs, np.float32)
    choices = probs.argmax(1)
    return find_highlights(table(hashes or "abcdefghij"[: len(probs)]), {"s": scheme}, {"s": probs}, {"s": choices}, run=2)


def rows(found, *group):
    return [image.row - 100 for image in found[HighlightGroup("s", *group)]]


def test_the_surest_and_the_most_doubtful_of_each_label():
    found = find(MOOD, [[0.4, 0.6], [0.9, 0.1], [0.01, 0.99], [0.2, 0.8]])
    assert rows(found, "good", "most confident") == [2, 3, 0]
    assert rows(found, "good", "least confident") == [0, 3, 2]
    assert rows(found, "bad", "most confident") == [1]
    assert found[HighlightGroup("s", "good", "most confident")][0] == Highlight(pytest.approx(-0.99), "99.0 %", "s3://b/2.jpg", "c", 102, 2)


def test_of_an_ordinal_scheme_the_extremes_and_the_widest_spread():
    found = find(FEELING, [[1, 0, 0], [0, 1, 0], [0, 0.2, 0.8], [0.5, 0, 0.5]])
    assert rows(found, None, "highest")[0] == 2
    assert rows(found, None, "lowest")[0] == 0
    doubtful = found[HighlightGroup("s", None, "least confident")][0]
    assert (doubtful.row, doubtful.value) == (103, "2.00 ± 1.00")


def test_the_same_bytes_are_shown_once():
    found = find(MOOD, [[0, 1], [0, 1], [0.1, 0.9], [0, 1]], hashes="aaba")
    assert rows(found, "good", "most confident") == [0, 2]
    again = Highlight(-2.0, "", "s3://b/copy.jpg", "a", 7, 3)
    assert [image.content_hash for image in merge(found[HighlightGroup("s", "good", "most confident")], [again])] == ["a", "b"]
    assert merge(found[HighlightGroup("s", "good", "most confident")], [again])[0].uri == "s3://b/copy.jpg", "the better of the two"


def test_a_group_holds_no_more_than_it_has_room_for():
    found = find(MOOD, np.tile([0.0, 1.0], (10, 1)))
    assert len(found[HighlightGroup("s", "good", "most confident")]) == highlights.MAX_PER_GROUP


def image(n):
    return Highlight(n, "", f"{n}", f"{n}", n, 0)


def test_a_page_of_few_groups_has_several_images_in_each():
    group, empty = HighlightGroup("s", "good", "most confident"), HighlightGroup("s", "bad", "most confident")
    assert select({group: [image(i) for i in range(4)], empty: []}, {"s": {"good": 4, "bad": 0}}) == {group: [image(i) for i in range(4)]}


def test_a_page_of_many_schemes_has_room_for_their_commonest_labels():
    some = {
        HighlightGroup(f"s{i}", f"l{j}", kind): [image(k) for k in range(4)]
        for i in range(15)
        for j in range(25)
        for kind in ("most confident", "least confident")
    }
    found = select(some, {f"s{i}": {f"l{j}": j for j in range(25)} for i in range(15)})
    assert {group.label for group in found} == {"l23", "l24"}
    assert {group.scheme for group in found} == {f"s{i}" for i in range(15)}
    assert sum(map(len, found.values())) == highlights.MAX_IMAGES
