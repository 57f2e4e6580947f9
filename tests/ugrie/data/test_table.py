"""Tables: rows that are taken keep their columns, images and names."""

from pathlib import Path

import numpy as np

from ugrie.data.table import Picked, Table


def test_rows_that_are_picked_stay_with_their_images():
    names = np.array(["fear/3.jpeg", "joy/1.jpg", "joy/2.PNG"])
    table = Table(Path("set"), {"class": np.array(["fear", "joy", "joy"])}, [Path("set") / name for name in names], names)
    some = table.take(np.array([2, 0])).take(np.array([1]))
    assert some.columns["class"].tolist() == ["fear"]
    assert (list(some.images), some.names.tolist()) == ([Path("set/fear/3.jpeg")], ["fear/3.jpeg"])


def test_picked_images_are_a_sequence():
    letters = Picked([b"a", b"b", b"c", b"d"], np.array([3, 1, 0]))
    assert (list(letters), list(letters[1:]), letters[-1], len(letters[:2])) == ([b"d", b"b", b"a"], [b"b", b"a"], b"a", 2)
