"""The first operator: a block's number to its images."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from pipeline.annotator import view
from pipeline.config import AnnotateConfig
from pipeline.plan import prepare
from ugrie import preprocess


@pytest.fixture(scope="module")
def plan(corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("load")
    return prepare(AnnotateConfig(input=str(corpus.folder), output=str(output), block_rows=24))


@pytest.fixture(scope="module")
def loaded(operators, plan):
    return [operators.load(plan, block) for block in range(plan.manifest.blocks)]


def test_a_block_is_its_images_in_the_manifests_order(plan, loaded):
    for block, table in enumerate(loaded):
        wanted = plan.manifest.read(plan.fs, block)
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
