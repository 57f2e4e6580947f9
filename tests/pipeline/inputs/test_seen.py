"""Duplicates among the images of a listing."""

import numpy as np

from pipeline.inputs import seen as module
from pipeline.inputs.item import Item
from pipeline.inputs.seen import Seen


def test_what_is_remembered_of_an_image_is_sixteen_bytes():
    seen = Seen()
    for batch in range(40):
        items = [Item(f"s3://bucket/{batch}/{i}.jpg") for i in range(1000)]
        assert seen.add(items)[1].all()
        assert not seen.add(items[:10])[1].any()
    assert sum(ids.nbytes + rests.nbytes for ids, rests in seen.arrays) == 16 * 40_000
    assert len(seen.arrays) < 8


def test_of_two_images_that_share_an_id_the_later_one_gets_the_id_of_its_salted_hash(monkeypatch):
    def hashed(uri, version, salt=0):
        return (7 + salt).to_bytes(8, "little") + uri.encode().ljust(8)

    monkeypatch.setattr(module, "hash_image", hashed)
    seen = Seen()
    ids, new = seen.add([Item("a"), Item("b"), Item("a"), Item("b"), Item("c")])
    assert (ids.tolist(), new.tolist()) == ([7, 8, 7, 8, 9], [True, True, False, False, True])
    ids, new = seen.add([Item("c"), Item("d"), Item("b"), Item("a")])
    assert (ids.tolist(), new.tolist()) == ([9, 10, 8, 7], [False, True, False, False])


def test_an_id_that_a_table_states_is_kept_unless_another_image_has_it():
    ids, new = Seen().add([Item("a", image_id=5), Item("b", image_id=5), Item("a", image_id=5)])
    assert (ids[0], ids[2], new.tolist()) == (5, 5, [True, True, False])
    assert ids[1] == np.frombuffer(module.hash_image("b", "", 1), "<i8")[0]
