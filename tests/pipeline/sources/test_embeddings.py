"""Input from the embeddings that earlier runs stored."""

import json
import shutil

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import StorageError, UserError
from pipeline.inputs.manifest import write_manifest
from pipeline.run.plan import prepare
from pipeline.sources import embeddings
from pipeline.sources.embeddings import embedded_items, embeddings_of, read_embedded
from pipeline.table.output_folder import OutputFolder
from pipeline.table_formats import table_format


@pytest.fixture(scope="module")
def kept(corpus, operators, tmp_path_factory):
    """An output of two runs: all 40 files with embeddings, then one folder again without."""
    output = tmp_path_factory.mktemp("kept")
    for run_id, settings in {
        "first": {"input": str(corpus.folder), "date": "2026-01-01", "keep_embeddings": True},
        "second": {"input": str(corpus.folder / "b"), "date": "2026-01-02", "reannotate": True},
    }.items():
        plan = prepare(AnnotateConfig(output=str(output), run_id=run_id, block_rows=16, **settings))
        operators.commit(plan)
    return output, plan.tables.tower


@pytest.fixture
def output(kept, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(kept[0], tmp_path / "output")
    return tmp_path / "output"


def change(output, run_id, **values):
    path = output / "runs" / f"{run_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_images_of_an_output_are_those_with_an_embedding(kept, corpus):
    output, tower = kept
    (file,) = output.glob("annotations/dt=2026-01-01/*.parquet")
    rows = pq.read_table(file, partitioning=None).to_pylist()
    found = list(embedded_items(str(output), tower, {}))
    assert len(found) == list(corpus.status.values()).count("ok") == 34
    for item in found:
        row = rows[item.position]
        assert (item.image_id, item.uri, item.size, row["status"]) == (row["image_id"], row["uri"], row["bytes"], "ok")
        assert item.container == str(file)


def test_embeddings_of_a_run_whose_files_are_in_lists_are_all_found(night, tmp_path, in_lists):
    images = [(f"file:///{i}.jpg", b"%d" % i) for i in range(6)]
    night(tmp_path, "2026-01-02", images, parts=3, embeddings=np.ones((6, 4), np.float16), config={"keep_embeddings": True})
    in_lists(OutputFolder(str(tmp_path), {}))
    assert sorted(item.uri for item in embedded_items(str(tmp_path), "0123", {})) == [uri for uri, _ in images]


def test_one_partition_of_an_output_may_be_named(kept):
    output, tower = kept
    whole = list(embedded_items(str(output), tower, {}))
    assert list(embedded_items(f"{output}/annotations/dt=2026-01-01/", tower, {})) == whole
    assert list(embedded_items(f"file://{output}", tower, {})) == whole


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "/annotations/dt=2026-01-02",
            "holds no embeddings of this model's image tower: none of its 1 runs used --keep-embeddings",
        ),
        ("/annotations/dt=2026-01-03", r"dt=2026-01-03 holds no committed run: name the --output of an earlier run"),
        ("/annotations", "holds no committed run"),
    ],
)
def test_where_there_are_none_it_says_why(kept, where, message):
    output, tower = kept
    with pytest.raises(UserError, match=message):
        list(embedded_items(f"{output}{where}", tower, {}))


def test_another_towers_embeddings_are_not_taken(kept):
    with pytest.raises(UserError, match=r"its embeddings are of another tower \(ugrie-tiny@[0-9a-f]{12}\)"):
        list(embedded_items(str(kept[0]), "0123456789ab", {}))


def test_of_an_image_the_newest_row_is_the_first(output, kept):
    _, tower = kept
    change(output, "second", config={"keep_embeddings": True}, tower=tower)
    found = [item for item in embedded_items(str(output), tower, {}) if "/b/" in item.uri]
    assert ["dt=2026-01-02" in item.container for item in found] == [True] * 10 + [False] * 10


def test_a_file_that_is_gone_is_the_users_error(output, kept):
    next(output.glob("annotations/dt=2026-01-01/*.parquet")).unlink()
    with pytest.raises(UserError, match="and a run record lists it: restore it, or remove the record"):
        list(embedded_items(str(output), kept[1], {}))


@pytest.fixture
def manifest(output, kept, tmp_path):
    """The manifest of all its images in blocks of 20, and the output that holds it."""
    work = OutputFolder(str(tmp_path / "work"), {})
    return write_manifest(work, "manifest", embedded_items(str(output), kept[1], {}), 20), work


def test_a_blocks_rows_are_read_in_their_order(output, manifest):
    blocks, work = manifest
    (file,) = output.glob("annotations/dt=2026-01-01/*.parquet")
    table = pq.read_table(file, partitioning=None)
    pq.write_table(table, file, row_group_size=7)  # a block's rows are in several row groups
    by_id = {row["image_id"]: row for row in table.to_pylist()}
    listed = blocks.read(work, 1)
    rows = read_embedded(work.fs, listed)
    assert rows["image_id"].equals(listed["image_id"])
    for row in rows.to_pylist():
        assert row == {name: by_id[row["image_id"]][name] for name in ("image_id", *embeddings.COLUMNS)}
    found = embeddings_of(rows)
    assert (found.shape, found.dtype) == ((14, table.schema.field("embedding").type.list_size), np.float16)
    assert found[3].tolist() == rows["embedding"][3].as_py()


def test_images_have_the_ids_that_they_had(manifest, output, kept):
    blocks, work = manifest
    listed = pa.concat_tables([blocks.read(work, i) for i in range(blocks.blocks)])
    assert listed["image_id"].to_pylist() == [item.image_id for item in embedded_items(str(output), kept[1], {})]


@pytest.mark.parametrize("lost", ["the file", "its rows", "their order"])
def test_a_file_that_was_changed_meanwhile_ends_the_run(output, manifest, lost):
    blocks, work = manifest
    (file,) = output.glob("annotations/dt=2026-01-01/*.parquet")
    table = pq.read_table(file, partitioning=None)
    if lost == "the file":
        file.unlink()
    else:
        pq.write_table(table.slice(0, 5) if lost == "its rows" else table.take(list(reversed(range(40)))), file)
    with pytest.raises(StorageError, match=r"restore it, then resume with the same --run-id"):
        read_embedded(work.fs, blocks.read(work, 0))


def items_of(output, tower):
    """The embedding of each image that is listed, as float16, by its ID."""
    found = list(embedded_items(str(output), tower, {}))
    fs = fsspec.filesystem("file")
    return {item.image_id: embeddings_of(read_embedded(fs, one_row(item)))[0].tolist() for item in found}


def one_row(item):
    columns = {"container": [item.container], "position": [item.position], "uri": [item.uri], "image_id": [item.image_id]}
    return pa.table(columns)


@pytest.mark.parametrize("kind", ["delta", "iceberg"])
def test_embeddings_of_a_table_without_float16_are_the_same(kept, corpus, operators, tmp_path, kind):
    """In the files of runs and in compacted ones, once the others are gone too. Two runs of one night have them."""
    output, tower = tmp_path / "output", kept[1]
    for run_id, settings in {"first": {}, "second": {"reannotate": True}, "others": {"keep_embeddings": False, "reannotate": True}}.items():
        asked = {"input": str(corpus.folder), "date": "2026-01-01", "keep_embeddings": True, "table_format": kind} | settings
        config = AnnotateConfig(output=str(output), run_id=run_id, block_rows=16, **asked)
        operators.commit(prepare(config))
        table_format.add(OutputFolder(str(output), {}), config)
    (file,) = output.glob("annotations/dt=2026-01-01/part-first-*.parquet")
    assert pq.read_schema(file).field("embedding").type == pa.list_(pa.float32())
    columns = pq.read_metadata(file).row_group(0).to_dict()["columns"]
    assert [each["path_in_schema"] for each in columns if "BYTE_STREAM_SPLIT" in each["encodings"]] == ["embedding.list.element"]
    expected = items_of(kept[0], tower)
    assert len(expected) == 34
    assert items_of(output, tower) == expected
    folder = OutputFolder(str(output), {})
    table_format.compact(folder, None)
    for path in output.glob("annotations/dt=2026-01-01/part-*-*[0-9a-f]-00000.parquet"):
        path.unlink()
    assert items_of(output, tower) == expected
    again = prepare(AnnotateConfig(input=str(output), output=str(tmp_path / "again"), run_id="again", from_embeddings=True))
    assert again.manifest.rows == 34
