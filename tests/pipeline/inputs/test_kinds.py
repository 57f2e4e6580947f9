"""Decision by names what a folder is: images, shards or tables, and what is left out of it."""

import gzip
from collections import Counter
from itertools import count

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.inputs.kinds import IMAGE, OTHER, SHARD, choose, kind_of, suffix_of
from pipeline.sources import source
from pipeline.storage.left_out import NOT_BY_NAME
from pipeline.storage.listing import File
from tests.plugins.listing import names, write


def listed(folder, column="uri"):
    """Return the last parts of the URIs in a folder, and what was left out of it."""
    left_out = Counter()
    found = source.list_items(str(folder), column, {}, left_out)
    return [item.uri.rpartition("/")[2] for item in found], dict(left_out)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JPG", IMAGE),
        ("bucket/3f9a", IMAGE),
        ("a.jpg_large", IMAGE),
        ("a.mp4", IMAGE),
        ("a.TAR", SHARD),
        ("a.parquet", "Parquet"),
        ("a.snappy.parquet", "Parquet"),
        ("a.parquet.gz", OTHER),
        ("a.CSV", "CSV"),
        ("a.csv.gz", "CSV"),
        ("a.b.tsv.zst", "TSV"),
        ("a.jsonl", "JSON Lines"),
        ("a.ndjson.gz", "JSON Lines"),
        ("a.txt", "text"),
        ("a.csv.bz2", OTHER),
        ("a.tar.gz", OTHER),
        ("a.tgz", OTHER),
        ("a.xlsx", OTHER),
        ("x/README", OTHER),
        ("x/.gitattributes", OTHER),
        ("https://host/list.csv?sig=a.jpg", "CSV"),
    ],
)
def test_a_name_tells_the_kind(name, kind):
    assert kind_of(name) == kind


def test_the_end_of_a_name_includes_what_is_compressed():
    assert [suffix_of(name) for name in ("a/b.CSV.gz", "a.tar.gz", "a.jpg.gz", "a.b/c")] == [".csv.gz", ".tar.gz", ".gz", ""]


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl", "list.ndjson", "list.txt"])
@pytest.mark.parametrize("compressed", [False, True])
def test_every_kind_of_table_of_text_is_read(tmp_path, name, compressed):
    data = {"csv": b"uri\na.jpg\n", "tsv": b"x\turi\n1\ta.jpg\n", "txt": b"a.jpg\n\n"}.get(name[5:], b'{"uri": "a.jpg"}\n')
    path = tmp_path / f"{name}.gz" if compressed else tmp_path / name
    path.write_bytes(gzip.compress(data) if compressed else data)
    assert names(path) == ["a.jpg"]


def test_tables_of_one_kind_in_a_folder_are_one_table(tmp_path):
    (tmp_path / "1.csv").write_text("uri\nx.jpg\n")
    (tmp_path / "2.csv.gz").write_bytes(gzip.compress(b"other,uri\n1,y.jpg\n"))
    assert listed(tmp_path) == (["x.jpg", "y.jpg"], {})


def test_the_shards_that_img2dataset_writes_are_read_without_its_tables_and_statistics(tmp_path, tar):
    for i in range(2):
        tar(tmp_path / f"0000{i}.tar", {f"{i}.jpg": b"1", f"{i}.json": b"{}"})
        pq.write_table(pa.table({"url": ["https://host/a.jpg"]}), tmp_path / f"0000{i}.parquet")
        write(tmp_path, f"0000{i}_stats.json")
    assert listed(tmp_path) == (["0.jpg", "1.jpg"], {".parquet": 2, ".json": 2, NOT_BY_NAME: 2})


def test_a_repository_of_hugging_face_is_its_parquet_files(tmp_path):
    write(tmp_path, "README.md", "LICENSE", "dataset_infos.json", "requirements.txt", "data/x")
    (tmp_path / "data" / "x").unlink()
    pq.write_table(pa.table({"image": [b"1"]}), tmp_path / "data" / "train-00000-of-00001.parquet")
    found, left_out = listed(tmp_path, "image")
    assert found == ["0"]
    assert left_out == {".md": 1, "license": 1, ".json": 1, ".txt": 1}


@pytest.mark.parametrize("image", ["a.jpg", "z.jpg", "3f9a"])
def test_tables_and_documents_beside_images_are_left_out_and_counted(tmp_path, image):
    write(tmp_path, image, "metadata.csv", "metadata.jsonl", "m.parquet", "m.tar", "captions/1.txt", "captions/2.txt", "README.md")
    assert listed(tmp_path) == ([image], {".csv": 1, ".jsonl": 1, ".parquet": 1, ".tar": 1, ".txt": 2, ".md": 1})


@pytest.mark.parametrize(("table", "other"), [("a.parquet", "b.whatever"), ("b.parquet", "a.whatever")])
def test_a_table_is_not_left_out_for_a_file_of_an_unknown_name(tmp_path, table, other):
    write(tmp_path, table, other)
    with pytest.raises(UserError, match=rf"{table} is beside {other}, whose name is not known: select .* --input '…/\*.parquet'"):
        listed(tmp_path)


@pytest.mark.parametrize("text", ["a.txt", "z.txt"])
def test_a_text_beside_images_of_an_unknown_name_is_left_out(tmp_path, text):
    write(tmp_path, text, "b.arw")
    assert listed(tmp_path) == (["b.arw"], {".txt": 1})


def test_tables_of_several_kinds_are_refused(tmp_path):
    write(tmp_path, "a.csv", "b.parquet", "c.csv")
    with pytest.raises(UserError, match=r"tables of several kinds, such as a.csv and b.parquet: select one kind by a glob, .*\*.csv'"):
        listed(tmp_path)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.json", "a.xlsx", "photos.zip", "a.csv.bz2", "README.md"])
def test_a_file_that_is_not_read_by_its_name_is_refused_with_what_is_read(tmp_path, name):
    write(tmp_path, name)
    for uri in (tmp_path, tmp_path / name):
        with pytest.raises(
            UserError, match=r"it holds only files that are not read \(1 \..*\); what is read: images, .tar shards, and tables"
        ):
            listed(uri)


def test_other_files_are_counted_and_not_held():
    documents = (File(f"{i}.json", 1, "") for i in range(1000))
    left_out = Counter()
    kind, files = choose(documents_then_endless(documents), left_out)
    assert (kind, next(files).name, left_out) == (IMAGE, "0.jpg", {".json": 1000})


def documents_then_endless(documents):
    yield from documents
    yield from (File(f"{i}.jpg", 1, "") for i in count())
