"""Data sets on the Hugging Face Hub: folders of images with metadata, and Parquet with an Image feature."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from tests.plugins.fetching import fetch_all
from tests.plugins.listing import items, kept, write

COMMIT, NAME = "b" * 40, "datasets/ada/photos"


@pytest.fixture
def image_folder(hub, tmp_path):
    """A data set of two images with metadata, of which an earlier revision has one."""
    for name in ("old", "new"):
        write(tmp_path, f"{name}/README.md", f"{name}/train/a b.jpg", data=name.encode())
    write(tmp_path, "new/train/x/b.jpg", data=b"image b")
    (tmp_path / "new" / "train" / "metadata.csv").write_text("file_name,caption\na b.jpg,ä\nx/b.jpg,b\ngone.jpg,c\n")
    hub.add(NAME, tmp_path / "old", COMMIT, v1=COMMIT)
    hub.add(NAME, tmp_path / "new")
    return f"hf://{NAME}"


def test_an_image_folder_is_listed_and_read_and_its_metadata_kept(image_folder, hub):
    found = items(image_folder)
    assert [item.uri for item in found] == [f"{image_folder}/train/a b.jpg", f"{image_folder}/train/x/b.jpg"]
    assert [item.size for item in found] == [3, 7]
    assert len({item.version for item in found}) == 2, "the digests in Git"
    hub.requests.clear()
    assert fetch_all(image_folder) == [b"new", b"image b"]
    assert sum("/resolve/" in path for path in hub.requests) == 2
    assert kept(image_folder, "caption") == [("a b.jpg", "ä"), ("b.jpg", "b"), ("gone.jpg", "c")]
    data = fetch_all(f"{image_folder}/train/metadata.csv", column="file_name")
    assert data == [b"new", b"image b", ("missing", "there is no such object")]


def test_a_revision_and_a_folder_may_be_named(image_folder):
    (item,) = items(f"{image_folder}@v1/train")
    assert item.uri == f"{image_folder}@v1/train/a b.jpg"
    assert fetch_all(f"{image_folder}@v1") == [b"old"]


def test_parquet_with_an_image_feature_is_read_row_by_row(hub, tmp_path):
    write(tmp_path, "data/train/a.jpg", data=b"beside the table")
    images = [{"bytes": b"image 0", "path": "a.jpg"}, {"bytes": None, "path": "a.jpg"}, None, {"bytes": b"image 3", "path": None}]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": [0, 1, 2, 3]})
    table = table.replace_schema_metadata({"huggingface": '{"info": {"features": {"image": {"_type": "Image"}}}}'})
    pq.write_table(table, tmp_path / "data" / "train" / "0000.parquet", row_group_size=2)
    hub.add(NAME, tmp_path / "data")
    where = f"hf://{NAME}/train/*.parquet"
    assert kept(where, "label", column="image") == [(str(i), i) for i in range(4)]
    found = fetch_all(where, "image")
    assert (found[0], found[1], found[3]) == (b"image 0", b"beside the table", b"image 3")
    assert found[2] == ("missing", "the table's row has no bytes")


def test_what_is_not_there_is_named_with_the_remedy(image_folder):
    with pytest.raises(
        UserError, match=r"nothing found at hf://datasets/ada/none: .*; a private or gated data set needs your token as HF_TOKEN"
    ):
        items("hf://datasets/ada/none")
    with pytest.raises(UserError, match=r"nothing found at hf://ada/photos: .*; give hf://datasets/…"):
        items("hf://ada/photos")
    with pytest.raises(UserError, match="nothing found at hf://datasets/ada/photos@v7"):
        items(f"{image_folder}@v7")
    with pytest.raises(UserError, match=r"hf://datasets/photos can't be listed: .*namespace/name"):
        items("hf://datasets/photos")
