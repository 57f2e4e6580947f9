"""Coalescing of rows into batches that are read together."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.images.coalesce import MAX_GAP, MAX_REQUEST_BYTES, coalesce, is_table, span, span_bytes

MAX_BYTES = 10**6
SIZES = st.one_of(st.integers(1, 50_000), st.sampled_from([0, MAX_BYTES, MAX_BYTES + 1]))


def row(position=None, size=None, container="x.tar", version="1"):
    return {"container": container, "version": version, "position": position, "size": size}


def rows_of(members):
    """Return a shard's rows for pairs of (gap before, size)."""
    at, found = 0, []
    for gap, size in members:
        found.append(row(at + gap, size))
        at += gap + size
    return found


@given(st.lists(st.tuples(st.integers(0, 2 * MAX_GAP), SIZES), max_size=60))
def test_neighbours_are_read_together_as_far_as_a_span_goes(members):
    rows = rows_of(members)
    found = list(coalesce(rows, MAX_BYTES))
    assert [each for batch in found for each in batch] == rows
    for batch in found:
        if len(batch) > 1:
            last = batch[-1]
            assert span_bytes(batch) == span(batch)["size"] == last["position"] + last["size"] - batch[0]["position"] <= MAX_REQUEST_BYTES
            assert all(0 < each["size"] <= MAX_BYTES for each in batch)
    for batch, (after, *_) in pairwise(found):  # no batch could have been longer
        last = batch[-1]
        apart = after["position"] - last["position"] - last["size"] > MAX_GAP
        unread = not all(0 < each["size"] <= MAX_BYTES for each in (last, after))
        assert apart or unread or after["position"] + after["size"] - batch[0]["position"] > MAX_REQUEST_BYTES


def test_only_members_of_one_version_of_one_shard_in_their_order_are_read_together():
    first, second = row(512, 100), row(1024, 100)
    assert len(list(coalesce([first, second], MAX_BYTES))) == 1
    for other in (second | {"container": "y.tar"}, second | {"version": "2"}, second | {"position": 600}, row(None, 100, None)):
        assert list(coalesce([first, other], MAX_BYTES)) == [[first], [other]]
    assert list(coalesce([second, first], MAX_BYTES)) == [[second], [first]]


def test_the_rows_of_a_table_are_one_batch_and_files_of_their_own_are_alone():
    table = [row(i, container="a.PARQUET") for i in (7, 3, 9)]
    files = [row(container=None), row(container=None)]
    found = list(coalesce([*table, *files, row(0, container="b.parquet")], MAX_BYTES))
    assert found == [table, *([file] for file in files), [row(0, container="b.parquet")]]
    assert [is_table(batch[0]) for batch in found] == [True, False, False, True]
    assert [span_bytes(batch) for batch in found] == [0] * 4


def test_no_rows_are_no_coalesce():
    assert list(coalesce([], MAX_BYTES)) == []
