"""Duplicates among the images of a listing."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.inputs import seen as module
from pipeline.inputs.item import Item
from pipeline.inputs.seen import Seen, SeenRows


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


def rows(*values):
    """A column of kept values, of one image each."""
    return [Item("a")] * len(values), np.zeros(len(values), int), pa.table({"post": pa.array(values)})


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=30), max_size=12))
def test_equal_rows_have_ids_of_their_own_which_do_not_depend_on_their_order(batches):
    found = {}
    for order in (1, -1):
        seen = SeenRows()
        for batch in batches[::order]:
            ids, new = seen.add(*rows(*batch[::order]))
            assert new.all()
            for value, number in zip(batch[::order], ids.tolist(), strict=True):
                found.setdefault(order, {}).setdefault(value, set()).add(number)
    values = [value for batch in batches for value in batch]
    assert found.get(1) == found.get(-1)
    assert {value: len(ids) for value, ids in found.get(1, {}).items()} == {value: values.count(value) for value in values}
    assert len(set().union(*found.get(1, {}).values())) == len(values)


def test_of_rows_whose_id_an_earlier_run_gave_the_first_counts():
    seen = SeenRows()
    for given_ids, new in (([5, 7, 5], [True, True, False]), ([7, 8], [False, True])):
        items, images, kept = rows(*given_ids)
        ids, found = seen.add(items, images, kept.append_column("row_id", pa.array(given_ids)))
        assert (ids.tolist(), found.tolist()) == (given_ids, new)


def test_a_row_that_keeps_too_much_is_refused_and_named():
    with pytest.raises(UserError, match=r"the row of a has 70,0\d\d bytes in the columns to keep, more than 65,536: keep fewer columns"):
        SeenRows().add(*rows("x", "y" * 70_000))
