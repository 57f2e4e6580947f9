"""Parquet with image bytes, file names or embeddings, as written by people and by Hugging Face datasets."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ugrie.data.format import Column, DataSet, Format
from ugrie.data.labelled import read
from ugrie.data.parquet import ParquetImages
from ugrie.data.readers import read_table
from ugrie.data.table import DataError
from ugrie.schemes.scheme import load_scheme

FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": ["fear", "joy"], "_type": "ClassLabel"},
    "votes": [{"_type": "Value"}],
}


def hugging_face(path: Path, contents, labels, **more) -> None:
    """Write a file as `datasets` does: structs of bytes and path, class numbers, and the classes' names in the metadata."""
    structs = [{"bytes": content, "path": f"{i}.jpg"} for i, content in enumerate(contents)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(structs, kind), "label": pa.array(labels, pa.int64())} | more)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": FEATURES}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


def test_hugging_face_shards_are_one_set_with_classes_and_splits_by_name(tmp_path):
    hugging_face(tmp_path / "data" / "train-00000-of-00002.parquet", [b"a", b"b", b"c"], [1, 0, 1])
    hugging_face(tmp_path / "data" / "train-00001-of-00002.parquet", [b"d"], [None])
    hugging_face(tmp_path / "data" / "test-00000-of-00001.parquet", [b"e"], [0])
    table = read_table(tmp_path, Format())
    assert list(table.images) == [b"e", b"a", b"b", b"c", b"d"]
    assert table.columns["label"].tolist() == ["fear", "joy", "fear", "joy", ""]
    assert table.columns["split"].tolist() == ["test", *["train"] * 4]
    assert table.names[1] == "train-00000-of-00002.parquet, row 0"
    train = read_table(tmp_path, Format(splits=("train",)))
    assert list(train.images) == [b"a", b"b", b"c", b"d"]


def test_a_file_of_bytes_is_labelled(tmp_path):
    columns = {"photo": pa.array([b"a", b"b", b"c"], pa.binary()), "valence": [1.5, None, 9.0], "fun": [True, False, None]}
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    schemes = [load_scheme("valence"), load_scheme("polarity2")]
    polarity = Column(column="fun", codes={"true": "positive", "false": "negative"})
    mine = read(DataSet(path="mine.parquet", file="photo", schemes={"valence": Column(), "polarity2": polarity}), tmp_path, schemes)
    seen = []

    def embed(images):
        seen.extend(images)
        return np.ones((len(images), 2), np.float32)

    data = mine.embed(embed)
    assert seen == [b"a", b"b", b"c"]
    assert data.targets["polarity2"].tolist() == [[0, 1], [1, 0], [0, 0]]
    np.testing.assert_allclose(data.targets["valence"] @ np.array(schemes[0].values), [1.5, 0, 9])


def test_file_names_in_a_column_are_images_beside_the_file(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").touch()
    words = pa.array(["a.jpg"]).dictionary_encode()
    pq.write_table(pa.table({"image": words, "votes": pa.array([2], pa.int8())}), tmp_path / "mine.parquet")
    table = read_table(tmp_path / "mine.parquet", Format())
    assert list(table.images) == [tmp_path / "images" / "a.jpg"]
    assert table.columns["votes"].tolist() == [2]


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float16(), 2), pa.large_list(pa.float64())])
def test_embeddings_in_a_column_need_no_image(tmp_path, kind):
    values = pa.array([[0.5, 1.0], [2.0, 4.0]], kind)
    pq.write_table(pa.table({"embedding": values, "mood": ["good", "bad"]}), tmp_path / "mine.parquet")
    table = read_table(tmp_path / "mine.parquet", Format())
    assert table.images.dtype == np.float32
    assert table.images.tolist() == [[0.5, 1], [2, 4]]
    assert table.columns["mood"].tolist() == ["good", "bad"]
    assert list(table.columns) == ["mood"]


def test_bytes_are_read_a_row_group_at_a_time(tmp_path, monkeypatch):
    contents = [bytes([i]) for i in range(7)]
    hugging_face(tmp_path / "a.parquet", contents[:5], [0] * 5)
    hugging_face(tmp_path / "b.parquet", contents[5:], [0] * 2)
    files = [pq.ParquetFile(tmp_path / name) for name in ("a.parquet", "b.parquet")]
    images = ParquetImages(files, "image")
    reads = []
    whole = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda file, i, **more: reads.append(i) or whole(file, i, **more))
    assert list(images) == contents
    assert reads == [0, 1, 2, 0]
    assert (images[-1], list(images[1:4]), len(images)) == (contents[6], contents[1:4], 7)
    with pytest.raises(IndexError):
        images[7]


def test_a_row_without_an_image_is_empty_bytes(tmp_path):
    table = {"image": pa.array([{"bytes": b"a"}, {"bytes": None}, None], pa.struct([("bytes", pa.binary())])), "x": [1, 2, 3]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert list(read_table(tmp_path / "a.parquet", Format()).images) == [b"a", b"", b""]


@pytest.mark.parametrize(
    ("table", "form", "message"),
    [
        ({"picture": pa.array([b"a"]), "x": [1]}, {"file": "pictur"}, r"no column 'pictur' of images \(did you mean 'picture'\?\)"),
        ({"image": ["a.jpg"], "x": [1]}, {}, "1 of 1 images are not in .*images: 'a.jpg'"),
        ({"embedding": [[1.0], [1.0, 2.0]]}, {}, "`embedding` has rows of different lengths: 1, 2"),
        ({"embedding": [[1.0], None]}, {}, "`embedding` has rows of different lengths: 0, 1"),
        ({"image": pa.array([], pa.binary())}, {}, "holds no images"),
    ],
)
def test_what_a_file_lacks_is_named(tmp_path, table, form, message):
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.parquet", Format(**form))


def test_files_of_different_columns_are_no_set(tmp_path):
    pq.write_table(pa.table({"image": [b"a"], "x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"image": [b"a"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b.parquet has other columns than .*a.parquet"):
        read_table(tmp_path, Format())


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match=r"a\.parquet can't be read as Parquet"):
        read_table(tmp_path / "a.parquet", Format())
