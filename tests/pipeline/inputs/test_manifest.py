"""The manifest: every image once, in blocks."""

import hashlib
from itertools import count

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs import manifest, seen
from pipeline.inputs.item import Item, Kept
from pipeline.inputs.manifest import image_id, write_manifest
from pipeline.sources.uri_table import uri_items
from pipeline.table.output_folder import OutputFolder


def some(count):
    return [Item(f"s3://bucket/{i}.jpg", 10 * i, "v1") for i in range(count)]


@pytest.fixture
def output(tmp_path):
    return OutputFolder(str(tmp_path), {})


def read_all(written, output):
    return pa.concat_tables(written.read(output, block) for block in range(written.blocks))


def test_an_id_stays_the_same_for_ever():
    assert image_id(Item("s3://bucket/a.jpg", 10, "v1")) == -7847594187560647203
    digest = hashlib.blake2b(b"s3://bucket/a.jpg\0v1", digest_size=16).digest()
    assert image_id(Item("s3://bucket/a.jpg", 10, "v1")) == int.from_bytes(digest[:8], "little", signed=True)


def test_an_id_is_an_int64():
    ids = [image_id(item) for item in some(200)]
    assert all(-(2**63) <= number < 2**63 for number in ids)
    assert min(ids) < 0 < max(ids)
    pa.array(ids, pa.int64())


def test_a_link_that_is_signed_anew_keeps_its_id_and_is_in_once_with_what_fetches_it(tmp_path, output):
    links = [f"https://host/a.jpg?size={size}&X-Amz-Signature={night}" for size in (1, 2) for night in ("mon", "tue")]
    found = list(uri_items(links, "list.csv", output.fs))
    ids = [image_id(item) for item in found]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    rows = read_all(write_manifest(output, "m", found), output).to_pylist()
    assert [(row["uri"], row["link"]) for row in rows] == [("https://host/a.jpg?size=1", links[0]), ("https://host/a.jpg?size=2", links[2])]


def test_a_manifest_is_read_through_faults(s3, failing):
    uri = f"s3://{s3.bucket}/manifest"
    written = write_manifest(OutputFolder(uri, s3.options), "m", some(500), 50)
    with failing(fraction=0.3, kinds=("slow_down", "internal_error", "reset", "short_length", "body_cut"), most=2) as (proxy, server):
        failing_output = OutputFolder(uri, server.options | {"config_kwargs": {"retries": {"total_max_attempts": 1}}})
        assert read_all(written, failing_output).column("uri").to_pylist() == [item.uri for item in some(500)]
    assert proxy.failed.total() > 0


def test_another_uri_or_another_version_has_another_id_and_nothing_else_counts():
    item = Item("s3://bucket/a.jpg", 10, "v1")
    assert image_id(Item("s3://bucket/a.jpg", 99, "v1", "x.tar", 5)) == image_id(item)
    assert image_id(Item("s3://bucket/a.jpg", 10, "v2")) != image_id(item)
    assert image_id(Item("s3://bucket/b.jpg", 10, "v1")) != image_id(item)
    assert image_id(Item("s3://bucket/a.jpgv", 10, "1")) != image_id(item)


@pytest.mark.parametrize(
    ("images", "block_rows", "expected"), [(1, None, 16), (16, None, 16), (300, None, 19), (5000, None, 256), (10, 3, 3), (10, 100, 100)]
)
def test_blocks_are_of_256_images_or_fewer_in_small_runs_or_as_asked(tmp_path, output, images, block_rows, expected):
    written = write_manifest(output, "m", some(images), block_rows)
    assert (written.rows, written.block_rows) == (images, expected)
    assert written.blocks == -(-images // expected)
    assert sum(written.rows_of(block) for block in range(written.blocks)) == images


def test_reading_a_block_gives_exactly_its_images(tmp_path, output):
    images = some(10)
    written = write_manifest(output, "m", images, block_rows=4)
    for block, expected in enumerate((images[:4], images[4:8], images[8:])):
        table = written.read(output, block)
        assert table.schema.equals(manifest.SCHEMA)
        assert len(table) == written.rows_of(block)
        rows = [{**item._asdict(), "image_id": image_id(item), "retried": False} for item in expected]
        assert table.to_pylist() == [{name: row[name] for name in manifest.SCHEMA.names} for row in rows]


def test_a_long_manifest_is_several_files(tmp_path, output):
    images = some(2 * manifest.BLOCKS_PER_FILE + 5)
    written = write_manifest(output, "m", images, block_rows=1)
    assert [pq.ParquetFile(path).num_row_groups for path in sorted((tmp_path / "m").iterdir())] == [manifest.BLOCKS_PER_FILE] * 2 + [5]
    assert read_all(written, output).column("uri").to_pylist() == [item.uri for item in images]


def test_an_image_that_is_named_twice_is_in_once(tmp_path, output):
    written = write_manifest(output, "m", some(5) + some(5) + [Item("s3://bucket/0.jpg", 0, "v2")], block_rows=4)
    assert [(row["uri"], row["version"]) for row in read_all(written, output).to_pylist()] == [
        *((f"s3://bucket/{i}.jpg", "v1") for i in range(5)),
        ("s3://bucket/0.jpg", "v2"),
    ]
    assert written.rows == 6


@pytest.fixture
def short_ids(monkeypatch):
    """IDs of 6 bits: among some tens of images many share one."""
    whole = seen.hash_image

    def shortened(uri, version, salt=0):
        number, rest = divmod(int.from_bytes(whole(uri, version, salt), "little"), 2**64)[::-1]
        return (number % 64).to_bytes(8, "little") + rest.to_bytes(8, "little")

    monkeypatch.setattr(seen, "hash_image", shortened)


@pytest.mark.parametrize("batch", [1, 7, 2**14])
def test_images_that_share_an_id_are_each_in_once_with_ids_of_their_own(short_ids, output, monkeypatch, caplog, batch):
    monkeypatch.setattr(manifest, "BATCH", batch)
    images = [*some(30), Item("s3://bucket/0.jpg", 0, "v2")]
    assert len({image_id(item) for item in images}) < len(images)
    written = write_manifest(output, "m", images + images, 8)
    rows = read_all(written, output).to_pylist()
    assert [(row["uri"], row["version"]) for row in rows] == [(item.uri, item.version) for item in images]
    assert len({row["image_id"] for row in rows}) == len(images) == written.rows == written.listed
    assert sum("has the image_id of another image" in message for message in caplog.messages) == len(images) - len(
        {image_id(item) for item in images}
    )


def test_images_that_share_an_id_are_known_in_later_nights_of_the_same_order(short_ids, output):
    images = some(30)
    known = np.sort(read_all(write_manifest(output, "first", images), output)["image_id"].to_numpy())
    again = write_manifest(output, "again", [*images, Item("s3://bucket/new.jpg", 5, "v1")], known=known)
    assert (again.listed, again.known) == (31, 30)
    assert read_all(again, output)["uri"].to_pylist() == ["s3://bucket/new.jpg"]


def test_in_another_order_no_image_is_lost_and_one_that_shares_an_id_may_come_again(short_ids, output):
    images = some(30)
    rows = read_all(write_manifest(output, "first", images), output).to_pylist()
    known = np.sort([row["image_id"] for row in rows])
    again = read_all(write_manifest(output, "again", images[::-1], known=known), output).to_pylist()
    assert {row["image_id"] for row in again}.isdisjoint(known)
    shared = [image_id(item) for item in images]
    assert {row["uri"] for row in again} <= {item.uri for item in images if shared.count(image_id(item)) > 1}


def test_images_that_are_known_are_left_out_and_counted(tmp_path, output):
    known = np.sort([image_id(item) for item in some(100)[::3]])
    written = write_manifest(output, "m", some(100) + some(10), 30, known)
    assert read_all(written, output).column("uri").to_pylist() == [item.uri for i, item in enumerate(some(100)) if i % 3]
    assert (written.rows, written.listed, written.known) == (66, 100, 34)


def test_images_that_failed_before_are_marked_and_counted_apart_unless_they_are_known(output):
    ids = [image_id(item) for item in some(100)]
    written = write_manifest(output, "m", some(100), 30, np.sort(ids[::3]), limit=50, failed=np.sort(ids[:9]))
    rows = read_all(written, output).to_pylist()
    assert [row["uri"] for row in rows if row["retried"]] == [f"s3://bucket/{i}.jpg" for i in (1, 2, 4, 5, 7, 8)]
    assert (written.rows, written.retried) == (50, 6)


def test_blocks_within_some_ids_are_those_of_which_no_image_is_left(output):
    images = some(manifest.BLOCKS_PER_FILE * 2 + 1)
    written = write_manifest(output, "m", images, block_rows=2)
    ids = np.sort([image_id(item) for item in [*images[:5], *images[-1:], *some(999)[500:]]])
    assert written.blocks_within(output, ids).tolist() == [0, 1, written.blocks - 1]
    assert written.blocks_within(output, manifest.NO_IDS).tolist() == []


@pytest.mark.parametrize(("limit", "last"), [(1, 1), (2, 2), (66, 98), (67, 99), (1000, 99)])
def test_what_comes_after_the_first_new_images_that_are_wanted_is_not_listed(tmp_path, output, limit, last):
    known = np.sort([image_id(item) for item in some(100)[::3]])
    written = write_manifest(output, "m", some(100), 30, known, limit)
    images = [i for i in range(last + 1) if i % 3]
    assert [row["uri"] for row in read_all(written, output).to_pylist()] == [f"s3://bucket/{i}.jpg" for i in images]
    assert (written.rows, written.listed, written.known) == (len(images), last + 1, last + 1 - len(images))


def test_a_limit_ends_the_listing(tmp_path, output):
    taken = []
    endless = (taken.append(i) or Item(f"s3://bucket/{i}.jpg") for i in count())
    assert write_manifest(output, "m", endless, limit=3).rows == 3
    assert len(taken) <= 1024


def test_where_all_images_are_known_nothing_is_written(tmp_path, output):
    known = np.sort([image_id(item) for item in some(5)])
    written = write_manifest(output, "m", some(5), known=known)
    assert (written.rows, written.blocks, written.listed, written.known) == (0, 0, 5, 5)
    assert not (tmp_path / "m").exists()


@given(st.lists(st.lists(st.integers(0, 60), max_size=40), max_size=12), st.sets(st.integers(0, 60)))
def test_however_often_and_wherever_images_are_repeated_each_new_one_is_in_once(batches, known):
    output = OutputFolder("memory://manifest-test", {})
    images = some(61)
    named = [images[i] for batch in batches for i in batch]
    ids = np.sort(np.array([image_id(images[i]) for i in known], np.int64))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(manifest, "BATCH", 16)
        written = write_manifest(output, "any", named, 4, ids)
    rows = read_all(written, output).to_pylist() if written.rows else []
    assert [row["uri"] for row in rows] == [item.uri for item in dict.fromkeys(named) if images.index(item) not in known]
    assert (written.listed, written.listed - written.known) == (len(set(named)), len(rows))


def test_the_manifest_can_lie_elsewhere():
    output = OutputFolder("memory://manifest-test", {})
    written = write_manifest(output, "m", some(3), 2)
    assert written.read(output, 1).column("uri").to_pylist() == ["s3://bucket/2.jpg"]


def with_kept(values, batch_rows=1000):
    """Rows of one image each, which keep a text of so many characters."""
    for start in range(0, len(values), batch_rows):
        kept = pa.RecordBatch.from_pydict({"text": ["x" * size for size in values[start : start + batch_rows]]})
        for i in range(len(kept)):
            yield Item(f"s3://bucket/{start + i}.jpg", kept=Kept(kept, i))


def test_kept_values_are_in_the_manifest_beside_their_rows(output):
    sizes = [7 * i % 50 for i in range(300)]
    written = write_manifest(output, "m", [*with_kept(sizes, 40), *with_kept(sizes[:5])], block_rows=16, limit=303)
    assert (written.rows, written.listed, written.key) == (303, 303, "row_id")
    assert read_all(written, output).schema.equals(manifest.SCHEMA)
    rows = pa.concat_tables(written.read(output, block, ["uri", *manifest.KEPT]) for block in range(written.blocks)).to_pylist()
    assert [(row["uri"], len(row["kept"]["text"])) for row in rows] == [
        (f"s3://bucket/{i}.jpg", sizes[i]) for i in [*range(300), *range(3)]
    ]
    assert len({row["row_id"] for row in rows}) == 303
    known = np.sort([row["row_id"] for row in rows[::2]])
    again = write_manifest(output, "again", with_kept(sizes), 16, known, failed=known)
    assert (again.rows, again.known, again.retried) == (150, 150, 0)
    assert written.blocks_within(output, np.sort([row["row_id"] for row in rows[:40]])).tolist() == [0, 1]


@pytest.mark.slow
def test_the_memory_for_kept_values_does_not_grow_with_their_number(output, monkeypatch):
    monkeypatch.setattr(manifest, "BATCH", 1000)

    def most_memory(rows):
        before, most = pa.total_allocated_bytes(), [0]

        def watched():
            for item in with_kept([1000] * rows):
                most.append(pa.total_allocated_bytes() - before)
                yield item

        assert write_manifest(output, "m", watched(), block_rows=16).rows == rows
        return max(most)

    assert most_memory(36_000) < 1.2 * most_memory(12_000) < 20 * 2**20
