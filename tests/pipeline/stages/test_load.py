"""The first operator: loads the images of a block."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import AnnotateConfig
from pipeline.errors import ImageError
from pipeline.run.plan import prepare
from pipeline.stages import load
from pipeline.stages.annotate import view
from ugrie.vision import preprocess


@pytest.fixture(scope="module")
def plan(corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("load")
    return prepare(AnnotateConfig(input=str(corpus.folder), output=str(output), block_rows=24))


@pytest.fixture(scope="module")
def loaded(operators, plan):
    return [operators.load(plan, block) for block in range(plan.manifest.blocks)]


def test_a_block_is_its_images_in_the_manifests_order(plan, loaded):
    for block, table in enumerate(loaded):
        wanted = plan.manifest.read(plan.output, block)
        assert table.schema.equals(plan.tables.loaded)
        assert table.column("image_id").equals(wanted.column("image_id"))
        assert table.column("uri").equals(wanted.column("uri"))
        assert set(table.column("block").to_pylist()) == {block}


def test_every_image_has_its_status_and_the_failed_a_message(corpus, rows, loaded):
    found = pa.concat_tables(loaded).drop_columns("crop").to_pylist()
    assert {rows.file_name(row): row["status"] for row in found} == corpus.status
    assert all((row["error"] is None) == (row["status"] == "ok") for row in found)
    assert all(row["error"] != "" for row in found)


def test_what_was_read_is_described_whether_it_could_be_decoded_or_not(corpus, rows, loaded):
    contents = {path.name: path.read_bytes() for path in corpus.files}
    for row in pa.concat_tables(loaded).drop_columns("crop").to_pylist():
        data = contents[rows.file_name(row)]
        if data:
            assert row["bytes"] == len(data)
            assert row["content_hash"] == hashlib.sha256(data).hexdigest()
        else:
            assert (row["bytes"], row["content_hash"]) == (None, None)
        assert (row["width"] is not None) == (row["height"] is not None) == (row["status"] == "ok")


def test_a_crop_is_the_images_and_nothing_where_it_failed(corpus, rows, plan, loaded, images):
    size = plan.tables.crop_size
    table = pa.concat_tables(loaded).combine_chunks()
    crops = view(table.column("crop"), size)
    for row, crop in zip(table.drop_columns("crop").to_pylist(), crops, strict=True):
        if row["status"] != "ok":
            assert not crop.any()
        elif rows.file_name(row) == "clear.png":
            expected = preprocess.crop(images.picture(102, mode="RGBA"), size)
            assert np.array_equal(crop, expected)


def test_a_block_that_is_not_in_the_manifest_is_no_rows_but_an_error(operators, plan):
    with pytest.raises((OSError, pa.ArrowInvalid)):
        operators.load(plan, plan.manifest.blocks)


def test_time_is_taken_for_every_row(loaded):
    for stage in ("fetch_seconds", "decode_seconds"):
        assert all(seconds >= 0 for table in loaded for seconds in table.column(stage).to_pylist())
    assert sum(pa.concat_tables(loaded).column("decode_seconds").to_pylist()) > 0


# --- duplicates


@pytest.fixture(scope="module")
def reposted(images, tmp_path_factory):
    """Two blocks: the first two images are the same; the fourth is in the second block too, and so is a file that is no image."""
    folder = tmp_path_factory.mktemp("reposted")
    for name, seed in {"0a.jpg": 1, "0b.jpg": 1, "0c.jpg": 2, "0d.jpg": 3, "1a.jpg": 3, "1b.jpg": 4, "1d.jpg": 3}.items():
        (folder / name).write_bytes(images.jpeg(seed))
    for name in ("0e.jpg", "1c.jpg"):
        (folder / name).write_bytes(b"no image")
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """A list of the bytes that are decoded from now on."""
    seen = []

    class Counting(load.Decoder):
        def __call__(self, data):
            seen.append(data)
            return super().__call__(data)

    monkeypatch.setattr(load, "Decoder", Counting)
    return seen


def test_the_same_bytes_are_decoded_once_and_their_other_rows_name_the_owner(reposted, operators, images, decoded, rows, tmp_path):
    plan = prepare(AnnotateConfig(input=str(reposted), output=str(tmp_path), block_rows=5))
    with operators.sharing():
        table = pa.concat_tables([operators.load(plan, block) for block in (0, 1)])
    found = {rows.file_name(row): row for row in table.to_pylist()}
    first = "block-00000000.parquet"
    assert {name: (row["status"], row["owner"]) for name, row in found.items()} == {
        "0a.jpg": ("ok", None),
        "0b.jpg": ("repost", first),
        "0c.jpg": ("ok", None),
        "0d.jpg": ("ok", None),
        "0e.jpg": ("not_an_image", None),
        "1a.jpg": ("repost", first),
        "1b.jpg": ("ok", None),
        "1c.jpg": ("repost", first),
        "1d.jpg": ("repost", first),
    }
    assert decoded == [images.jpeg(1), images.jpeg(2), images.jpeg(3), b"no image", images.jpeg(4)]
    for name, row in found.items():
        assert row["content_hash"] == hashlib.sha256((reposted / name).read_bytes()).hexdigest()
        assert row["bytes"] == (reposted / name).stat().st_size
        assert any(row["crop"]) == (row["status"] == "ok")
        assert (row["width"], row["error"] is None) == ((96, True) if row["status"] == "ok" else (None, row["status"] == "repost"))


def test_a_block_that_is_begun_again_does_the_same_images_itself(reposted, operators, decoded, tmp_path):
    plan = prepare(AnnotateConfig(input=str(reposted), output=str(tmp_path), block_rows=5))
    with operators.sharing():
        before, _, after = [operators.load(plan, block) for block in (0, 1, 0)]
    columns = ["status", "owner", "error", "crop"]
    assert after.select(columns).equals(before.select(columns))


def test_where_nobody_says_whose_images_are_every_block_does_its_own(reposted, operators, decoded, tmp_path):
    plan = prepare(AnnotateConfig(input=str(reposted), output=str(tmp_path), block_rows=5))
    owners = pa.concat_tables([operators.load(plan, block) for block in (0, 1)]).column("owner").to_pylist()
    assert owners == [None, "block-00000000.parquet", *[None] * 6, "block-00000001.parquet"]
    assert len(decoded) == 7


def test_an_image_of_several_rows_is_fetched_and_decoded_once_in_a_block(reposted, operators, decoded, monkeypatch, tmp_path):
    named = ["0a.jpg", "gone.jpg", "0a.jpg", "0e.jpg", "0b.jpg", "gone.jpg", "0e.jpg", "1b.jpg", "0a.jpg"]
    table = tmp_path / "posts.csv"
    table.write_text("post,uri\n" + "".join(f"{i},{reposted / name}\n" for i, name in enumerate(named)))
    fetched = []
    monkeypatch.setattr(load.Fetcher, "fetch", lambda self, rows, fetch=load.Fetcher.fetch: fetched.append(len(rows)) or fetch(self, rows))
    plan = prepare(AnnotateConfig(input=str(table), output=str(tmp_path / "out"), keep_columns=("post",), block_rows=6))
    first, second = (operators.load(plan, block) for block in (0, 1))
    assert (fetched, len(decoded)) == ([4, 3], 2 + 3)
    assert first["image_id"].to_pylist() + second["image_id"].to_pylist() == [
        *(row["image_id"] for block in (0, 1) for row in plan.manifest.read(plan.output, block).to_pylist())
    ]
    own = "block-00000000.parquet"
    assert list(zip(*(first[name].to_pylist() for name in ("status", "owner")), strict=True)) == [
        ("ok", None),
        ("missing", None),
        ("repost", own),
        ("not_an_image", None),
        ("repost", own),
        ("missing", None),
    ]
    assert [any(crop) for crop in first["crop"].to_pylist()] == [True, False, False, False, False, False]
    assert [row["error"] is None for row in first.to_pylist()] == [True, False, True, False, True, False]
    assert second["status"].to_pylist() == ["not_an_image", "ok", "ok"]


class Fetched:
    """A fetcher whose rows are fetched already."""

    def fetch(self, rows):
        yield from rows


THINGS = st.one_of(st.integers(0, 200).map(bytes), st.just(ImageError("missing", "gone")))


@given(st.lists(THINGS, max_size=300), st.sampled_from([32, 64, 256]), st.integers(1, 500))
def test_no_more_is_claimed_at_once_than_the_bounds(things, most, most_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "MAX_CHUNK_BYTES", most_bytes)
        chunks = list(load._chunks([({"image_id": i}, thing) for i, thing in enumerate(things)], Fetched(), most))
    assert [row["image_id"] for chunk in chunks for row, _ in chunk] == list(range(len(things)))
    assert [data for chunk in chunks for _, data in chunk] == things
    for chunk in chunks:
        assert 0 < len(chunk) <= most
        assert sum(len(data) for _, data in chunk[:-1] if isinstance(data, bytes)) < most_bytes
    assert not chunks or len(chunks[0]) <= most // 4
