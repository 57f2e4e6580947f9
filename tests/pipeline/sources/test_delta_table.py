"""Listing of Delta tables: their current rows, as deltalake knows them."""

import datetime as dt
import json
from decimal import Decimal

import deltalake
import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.inputs.item import kept_rows
from pipeline.sources.source import list_items
from pipeline.table.kept_columns import Keep
from pipeline.table_formats.delta_storage import storage_options
from tests.plugins.delta_logs import column, inline_vector, vector_in_file, write_file, write_log
from tests.plugins.fetching import fetch_all, fetched, fetcher
from tests.plugins.listing import items, kept, names

URI = column("uri", "string")


def test_the_current_version_is_listed_without_removed_files_and_an_earlier_one_if_it_is_named(tmp_path):
    table = tmp_path / "t"
    for rows in (["a.jpg", "b.jpg"], ["c.jpg", None]):
        deltalake.write_deltalake(table, pa.table({"uri": rows, "id": [f"{row}-id" for row in rows]}), mode="append")
    deltalake.DeltaTable(table).delete("uri = 'a.jpg'")
    assert len(list(table.glob("*.parquet"))) == 3
    assert sorted(kept(table, "id")) == [("", "None-id"), ("b.jpg", "b.jpg-id"), ("c.jpg", "c.jpg-id")]
    assert sorted(names(f"{table}@v0")) == ["a.jpg", "b.jpg"]
    assert sorted(names(f"{table}@v1/")) == ["", "a.jpg", "b.jpg", "c.jpg"]
    with pytest.raises(UserError, match=r"t can't be read as a Delta table: .*version 9"):
        items(f"{table}@v9")


def test_relative_uris_are_relative_to_the_table_whatever_the_partition(tmp_path):
    deltalake.write_deltalake(tmp_path / "t", pa.table({"uri": ["x/a.jpg"], "dt": ["1"]}), partition_by=["dt"])
    assert [item.uri for item in items(tmp_path / "t")] == [f"file://{tmp_path}/t/x/a.jpg"]


def test_partitions_are_kept_with_the_types_of_the_table(tmp_path):
    rows = pa.table(
        {
            "uri": ["a.jpg", "b.jpg", "c.jpg"],
            "day": [dt.date(2024, 1, 1), None, dt.date(2024, 1, 2)],
            "place": ["Zürich / 1%20", "x=y", None],
            "part": pa.array([1, 2, None], pa.int64()),
            "price": pa.array([Decimal("1.50"), None, Decimal("2.00")], pa.decimal128(10, 2)),
        }
    )
    deltalake.write_deltalake(tmp_path / "t", rows, partition_by=["day", "place", "part", "price"])
    expected = [tuple(row.values()) for row in rows.to_pylist()]
    assert sorted(kept(tmp_path / "t", "day", "place", "part", "price")) == expected


@pytest.mark.parametrize("folder", ["t", "the täble 100%"])
def test_rows_that_deletion_vectors_mark_are_left_out(tmp_path, folder):
    root = tmp_path / folder
    adds = [
        write_file(root, "p=ü 1%20/a.parquet", pa.table({"uri": list("abcdefg")}), {"p": "ü 1%20"}, deletionVector=inline_vector(0, 3, 4)),
        write_file(root, "b.parquet", pa.table({"uri": list("hijk")}), {"p": None}, deletionVector=vector_in_file(root, 1, 3)),
        write_file(root, "c.parquet", pa.table({"uri": ["l"]}), {"p": "x"}),
        write_file(root, "d.parquet", pa.table({"uri": list("mnop")}), {"p": "x"}, deletionVector=inline_vector(0, 1, 2)),
    ]
    write_log(root, [URI, column("p", "string")], adds, ("p",))
    assert sorted(kept(root, "p", "again=uri")) == [
        *(("b", "ü 1%20", "b"), ("c", "ü 1%20", "c"), ("f", "ü 1%20", "f"), ("g", "ü 1%20", "g")),
        *(("h", None, "h"), ("j", None, "j"), ("l", "x", "l"), ("p", "x", "p")),
    ]


def test_images_in_a_table_are_read_from_the_rows_that_are_left(tmp_path):
    images = pa.array([f"image {i}".encode() for i in range(7)])
    add = write_file(tmp_path, "a.parquet", pa.table({"image": images, "n": range(7)}), deletionVector=inline_vector(0, 3, 4))
    write_log(tmp_path, [column("image", "binary"), column("n", "long")], [add])
    assert [(item.position, item.uri) for item in items(tmp_path, "image")] == [
        (i, f"file://{tmp_path}/a.parquet!/{i}") for i in (1, 2, 5, 6)
    ]
    assert [row[1:] for row in kept(tmp_path, "n", column="image")] == [(1,), (2,), (5,), (6,)]
    assert fetch_all(tmp_path, "image") == [b"image 1", b"image 2", b"image 5", b"image 6"]
    with pytest.raises(UserError, match=r"column 'image' of .* holds the images: leave it out"):
        kept(tmp_path, "image", column="image")


def test_files_whose_names_tell_nothing_are_read_for_uris_and_refused_for_images(tmp_path):
    add = write_file(tmp_path, "part-0", pa.table({"uri": ["a.jpg"], "image": [b"1"]}))
    write_log(tmp_path, [URI, column("image", "binary")], [add])
    assert names(tmp_path) == ["a.jpg"]
    with pytest.raises(UserError, match=r"part-0 holds images, and is not named .parquet: rewrite the table"):
        items(tmp_path, "image")


@pytest.mark.parametrize("mode", ["name", "id"])
def test_columns_are_found_by_what_they_are_mapped_to(tmp_path, mode):
    def inner(first):
        parts = [column("name", "string", f"col-{first}", first), column("lat", "double", f"col-{first + 1}", first + 1)]
        return {"type": "struct", "fields": parts}

    schema = [
        column("uri", "string", "col-1", 1),
        column("image", "binary", "col-2", 2),
        column("place", inner(4), "col-3", 3),
        column("places", {"type": "array", "elementType": inner(8), "containsNull": True}, "col-6", 6),
        column("p", "string", "col-7", 7),
    ]

    def field(name, kind, number):
        return pa.field(name, kind, metadata={"PARQUET:field_id": str(number)})

    def struct(first):
        return pa.struct([field(f"col-{first + 1}", pa.float64(), first + 1), field(f"col-{first}", pa.string(), first)])

    names = {1: "col-1", 2: "col-2", 3: "col-3", 6: "col-6"} if mode == "name" else {1: "a", 2: "b", 3: "uri", 6: "p"}
    types = {1: pa.string(), 2: pa.binary(), 3: struct(4), 6: pa.list_(struct(8))}
    values = {
        1: ["a", "b"],
        2: [b"1", b"2"],
        3: [{"col-4": "Rom", "col-5": 41.9}, None],
        6: [[{"col-8": "Rom", "col-9": 41.9}, None], None],
    }
    file = pa.table(list(values.values()), schema=pa.schema([field(names[i], types[i], i) for i in values]))
    write_log(tmp_path, schema, [write_file(tmp_path, "x.parquet", file, {"col-7": "v"})], ("p",), mode)
    rome = {"name": "Rom", "lat": 41.9}
    assert kept(tmp_path, "place", "places", "p") == [("a", rome, [rome, None], "v"), ("b", None, None, "v")]
    assert fetch_all(tmp_path, "image") == [b"1", b"2"]


def test_columns_that_were_added_or_made_wider_have_the_types_of_the_table_in_all_files(tmp_path):
    deltalake.write_deltalake(tmp_path / "t", pa.table({"uri": ["a.jpg"], "n": pa.array([1], pa.int32())}))
    later = pa.table({"uri": ["b.jpg"], "n": pa.array([2], pa.int32()), "tag": ["x"], "link": ["c.jpg"]})
    deltalake.write_deltalake(tmp_path / "t", later, mode="append", schema_mode="merge")
    assert sorted(kept(tmp_path / "t", "n", "tag")) == [("a.jpg", 1, None), ("b.jpg", 2, "x")]
    assert sorted(names(tmp_path / "t", "link")) == ["", "c.jpg"]


def test_a_table_that_cannot_be_read_is_named_with_the_remedy(tmp_path, monkeypatch):
    table = tmp_path / "t"
    deltalake.write_deltalake(table, pa.table({"uri": ["a.jpg"], "post_id": [1]}))
    with pytest.raises(UserError, match=r"t has no column 'url' \(did you mean 'uri'\?\); it has uri, post_id: name one with --column"):
        items(table, "url")
    with pytest.raises(UserError, match=r"t has no column 'postid' \(did you mean 'post_id'\?\).*: name one with --keep-columns"):
        kept(table, "postid")
    with pytest.raises(UserError, match=r"column 'post_id' of .*t holds int64, neither URIs nor image bytes"):
        items(table, "post_id")
    (file,) = table.glob("*.parquet")
    file.rename(table / "moved")
    with pytest.raises(UserError, match=rf"t lists a file that is gone: {file}; restore it"):
        items(table)
    monkeypatch.setattr("pipeline.table_formats.delta_log.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"a Delta table needs deltalake: pip install 'ugrie\[delta\]'"):
        items(table)


@pytest.mark.parametrize("feature", ["madeUp", "catalogManaged"])
def test_a_table_with_a_feature_that_is_not_read_is_refused_in_one_line(tmp_path, feature):
    add = write_file(tmp_path, "a.parquet", pa.table({"uri": ["a"]}))
    write_log(tmp_path, [URI], [add])
    log = tmp_path / "_delta_log" / f"{0:020}.json"
    log.write_text(log.read_text().replace('"timestampNtz"', json.dumps(feature)))
    with pytest.raises(UserError, match=r"can't be read as a Delta table: .+") as error:
        items(tmp_path)
    assert "\n" not in str(error.value)


def test_a_table_without_rows_holds_no_images(tmp_path):
    deltalake.DeltaTable.create(tmp_path / "t", pa.schema([pa.field("uri", pa.string())]))
    with pytest.raises(UserError, match="t holds no images"):
        items(tmp_path / "t")


def test_a_table_in_s3_is_listed_and_read(s3):
    table, options = f"s3://{s3.bucket}/delta/the täble", storage_options(s3.fs)
    rows = pa.table({"image": [b"1", b"2", b"3"], "p": ["a b", "c%20", "a b"], "n": [1, 2, 3]})
    deltalake.write_deltalake(table, rows, partition_by=["p"], storage_options=options)
    deltalake.DeltaTable(table, storage_options=options).delete("n = 3")
    keep = Keep(["n", "p"])
    found = list(list_items(f"{table}/", "image", s3.options, keep=keep))
    assert sorted(tuple(row.values()) for row in kept_rows(found).to_pylist()) == [(1, "a b"), (2, "c%20")]
    assert sorted(fetched(fetcher(table, column="image", options=s3.options, timeout=60.0), *found)) == [b"1", b"2"]
    with pytest.raises(UserError, match=r"is part of the Delta table s3://.*/the täble, whose files may be removed ones"):
        list(list_items(f"s3://{found[0].container}", "image", s3.options))


def test_files_in_another_storage_are_refused(tmp_path):
    add = write_file(tmp_path, "a.parquet", pa.table({"uri": ["a"]})) | {"path": "s3://elsewhere/a.parquet"}
    write_log(tmp_path, [URI], [add])
    with pytest.raises(UserError, match=r"has files in another storage, such as s3://elsewhere/a.parquet: copy the table"):
        items(tmp_path)
