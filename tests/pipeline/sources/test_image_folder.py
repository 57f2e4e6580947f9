"""Image folders with metadata, as Hugging Face datasets lay them out."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.sources.source import list_items
from pipeline.table.kept_columns import Keep
from tests.plugins.listing import kept, names, write

ROWS = [{"file_name": "a.jpg", "caption": "ä, b"}, {"file_name": "sub/b.jpg", "caption": "c"}, {"file_name": "a.jpg", "caption": ""}]


def write_metadata(folder, kind):
    path = folder / f"metadata.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    else:
        path.write_text("file_name,caption\n" + "".join(f'{row["file_name"]},"{row["caption"]}"\n' for row in ROWS))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_the_rows_of_the_metadata_are_the_input_where_their_columns_are_kept(tmp_path, kind):
    write(tmp_path, "train/a.jpg", "train/sub/b.jpg", "train/c.jpg", "README.md")
    write_metadata(tmp_path / "train", kind)
    assert kept(tmp_path, "caption") == [("a.jpg", "ä, b"), ("b.jpg", "c"), ("a.jpg", "")]
    assert names(tmp_path) == ["a.jpg", "c.jpg", "b.jpg"], "without columns to keep, the images are"
    left_out = Counter()
    found = list(list_items(str(tmp_path), "uri", {}, left_out, keep=Keep(["caption"])))
    assert [item.uri for item in found][1] == f"file://{tmp_path}/train/sub/b.jpg"
    assert left_out == {".md": 1, "an image that no metadata names": 1}
    with pytest.raises(UserError, match=r"'captions' \(did you mean 'caption'\?\)"):
        kept(tmp_path, "captions")


def test_each_folder_may_have_its_own_metadata_and_other_columns_with_the_names(tmp_path):
    write(tmp_path, "part=1/a.jpg", "part=2/a.jpg", "part=2/mask.png")
    for part in (1, 2):
        (tmp_path / f"part={part}" / "metadata.csv").write_text(f"file_name,mask_file_name,caption\na.jpg,mask.png,{part * 11}\n")
    assert kept(tmp_path, "caption", "part") == [("a.jpg", "11", 1), ("a.jpg", "22", 2)]
    assert kept(tmp_path, "caption", column="mask_file_name") == [("mask.png", "11"), ("mask.png", "22")]


def test_metadata_without_file_names_and_images_without_metadata_are_named(tmp_path):
    write(tmp_path, "a.jpg")
    with pytest.raises(UserError, match="holds images, which have no columns: name a table"):
        kept(tmp_path, "caption")
    (tmp_path / "metadata.csv").write_text("name,caption\na.jpg,x\n")
    with pytest.raises(UserError, match=r"metadata.csv has no column 'file_name'.*; it has name, caption"):
        kept(tmp_path, "caption")
