"""Listing of tables of URIs, and of Parquet with image bytes."""

import io
import json
from pathlib import Path

import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.inputs.item import Item
from pipeline.sources import source, uri_table
from pipeline.sources.uri_table import uri_items
from pipeline.storage.uris import why_refused
from pipeline.table.kept_columns import Keep
from tests.plugins.listing import items, kept, names, write


def csv(folder: Path, values: list[str]) -> Path:
    path = folder / "list.csv"
    path.write_text("id,uri\n" + "".join(f'{i},"{value}"\n' for i, value in enumerate(values)))
    return path


def jsonl(folder: Path, values: list[str]) -> Path:
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps({"uri": value or None}) + "\n" for value in values))
    return path


def parquet(folder: Path, values: list[str]) -> Path:
    path = folder / "list.parquet"
    pq.write_table(pa.table({"uri": [value or None for value in values]}), path, row_group_size=2)
    return path


@pytest.mark.parametrize("table", [csv, jsonl, parquet])
def test_a_tables_uris_may_be_whole_or_absolute_or_relative_to_it(tmp_path, table):
    path = table(tmp_path, ["s3://bucket/a.jpg", "/data/b.jpg", "c/d.jpg", "", "a b,c.jpg"])
    uris = ["s3://bucket/a.jpg", "file:///data/b.jpg", f"file://{tmp_path}/c/d.jpg", "", f"file://{tmp_path}/a b,c.jpg"]
    assert items(path) == [Item(uri) for uri in uris]


def test_a_relative_path_in_a_table_elsewhere_is_elsewhere_too():
    fsspec.filesystem("memory").pipe_file("/source-lists/list.csv", b"uri\na.jpg\n")
    assert [item.uri for item in items("memory://source-lists/list.csv")] == ["memory:///source-lists/a.jpg"]


@pytest.mark.parametrize("write_with", ["pandas", "polars", "polars categories", "pandas categories"])
def test_tables_that_other_tools_write_are_read(tmp_path, write_with):
    path, values = tmp_path / "list.parquet", ["s3://bucket/a.jpg", "s3://bucket/b.jpg"]
    if write_with.startswith("pandas"):
        pd.DataFrame({"uri": pd.Series(values, dtype="category" if "categories" in write_with else None)}).to_parquet(path)
    else:
        pl.DataFrame({"uri": pl.Series(values, dtype=pl.Categorical if "categories" in write_with else pl.String)}).write_parquet(path)
    assert [item.uri for item in items(path)] == values


def test_what_a_few_bytes_repeat_often_takes_little_memory(tmp_path):
    uri = "s3://bucket/" + "x" * 60_000
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([uri]))
    pq.write_table(pa.table({"uri": column}), tmp_path / "list.parquet", store_schema=False)
    assert (tmp_path / "list.parquet").stat().st_size < 20_000
    before = pa.total_allocated_bytes()
    most = 0
    for item in source.list_items(str(tmp_path / "list.parquet"), "uri", {}):
        assert item.uri == uri
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 10 * 2**20


def test_the_column_is_the_one_that_is_named(tmp_path):
    pq.write_table(pa.table({"uri": [1], "thumbnail": ["s3://b/t.jpg"]}), tmp_path / "list.parquet")
    assert [item.uri for item in items(tmp_path / "list.parquet", "thumbnail")] == ["s3://b/t.jpg"]


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    for i in range(3):
        pq.write_table(pa.table({"uri": [f"s3://b/{i}.jpg"]}), tmp_path / f"part-{i}.parquet")
    write(tmp_path, "_metadata", "_SUCCESS")
    assert names(tmp_path) == ["0.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"1", b"22", None], pa.binary()),
        pa.array([b"1", b"22", None], pa.large_binary()),
        pa.array(
            [{"bytes": b"1", "path": "a.jpg"}, {"bytes": b"22", "path": None}, None], pa.struct({"bytes": pa.binary(), "path": pa.string()})
        ),
    ],
    ids=["binary", "large binary", "Hugging Face"],
)
def test_a_parquet_with_bytes_gives_its_rows(tmp_path, column):
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": column}), path)
    found = items(path, "image")
    assert [item.uri for item in found] == [f"file://{path}!/{row}" for row in range(3)]
    assert [item.position for item in found] == [0, 1, 2]
    assert {item.container for item in found} == {str(path)}
    assert {item.version for item in found} != {""}


def test_a_tables_links_are_shown_without_their_secrets_and_kept_with_them(tmp_path):
    link = "https://me:hunter2@host/a.jpg?size=2&X-Amz-Signature=hunter2"
    plain, signed, again = items(csv(tmp_path, ["https://host/b.jpg?size=2", link, " HTTPS://host/c.jpg "]))
    assert (plain.uri, plain.link) == ("https://host/b.jpg?size=2", None)
    assert (signed.uri, signed.link) == ("https://host/a.jpg?size=2", link)
    assert again == Item("https://host/c.jpg")


@pytest.mark.parametrize(
    ("value", "uri"),
    [
        ("c/d.jpg", "https://host/lists/c/d.jpg"),
        ("../d.jpg?x=1", "https://host/d.jpg?x=1"),
        ("/d.jpg", "https://host/d.jpg"),
        ("//evil/d.jpg", "https://evil/d.jpg"),
        ("c.jpg?sig=hunter2", "https://host/lists/c.jpg"),
        ("//[x", "https://host/lists/[x"),
    ],
)
def test_a_relative_link_is_taken_from_its_tables_as_browsers_do(value, uri):
    (item,) = uri_items([value], "https://host/lists/list.csv?sig=hunter2/", fsspec.filesystem("https"))
    assert item.uri == uri
    assert "hunter2" not in item.uri


@pytest.mark.parametrize("value", ["..\\x", "../../../etc/passwd", "/etc/passwd", "c:\\x", "data:image/png;base64,AAAA"])
def test_a_path_in_a_table_elsewhere_stays_in_its_storage(value):
    fs = fsspec.filesystem("s3", anon=True)
    (item,) = uri_items([value], "bucket/lists/list.csv", fs)
    assert item.uri.startswith("s3://")


def test_a_local_uri_in_a_table_elsewhere_is_seen_as_one_and_refused():
    fs = fsspec.filesystem("s3", anon=True)
    for value in ("file:/etc/passwd", " FILE://localhost/etc/passwd", "local:/etc/passwd"):
        (item,) = uri_items([value], "bucket/lists/list.csv", fs)
        assert item.uri == "file:///etc/passwd"
        assert why_refused(item.uri, source.allowed_protocols("s3://bucket", ())) is not None


def broken_parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"uri": ["a"] * 100}), buffer)
    data = bytearray(buffer.getvalue())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[footer : footer + 20] = b"\xff" * 20
    return bytes(data)


def numbers() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"uri": [1]}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("list.csv", b"uri,b\na,1\nc,2,3\n", "list.csv, line 3: 3 fields, but the header has 2"),
        ("list.csv", b"uri\na\n" + b"x" * 70_000, "list.csv holds a URI of 70000 characters: name the column of URIs with --column"),
        ("list.jsonl", b'{"uri": "a"}\n{"uri": \n', "list.jsonl, line 2: Expecting value"),
        ("list.parquet", numbers(), "column 'uri' of .*list.parquet holds int64, neither URIs nor image bytes: name another with --column"),
        ("list.parquet", b"PAR1 and no more", "list.parquet can't be read as a table"),
        ("list.parquet", broken_parquet(), "list.parquet can't be read"),
    ],
)
def test_a_table_that_is_not_as_it_should_be_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        items(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_of_every_kind_are_uris(tmp_path, kind):
    pq.write_table(pa.table({"uri": pa.array(["a.jpg", None, "b.jpg"]).cast(kind)}), tmp_path / "list.parquet")
    assert [item.uri and item.uri.rpartition("/")[2] for item in items(tmp_path / "list.parquet")] == ["a.jpg", "", "b.jpg"]


@pytest.mark.slow
def test_a_parquet_of_uris_with_a_value_of_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    column = pa.array(["a.jpg", "x" * 2**28])
    pq.write_table(pa.table({"uri": column}), tmp_path / "list.parquet", compression="zstd", use_dictionary=False)
    del column
    before = pa.total_allocated_bytes()
    with pytest.raises(UserError, match=r"list.parquet can't be read as a table: page of .* bytes unpacks to 268,.*name another column"):
        items(tmp_path / "list.parquet")
    assert pa.total_allocated_bytes() - before < 2**20


STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def test_rows_with_only_a_path_are_uris(tmp_path):
    values = [{"bytes": None, "path": "a.jpg"}, {"bytes": None, "path": None}, None, {"bytes": None, "path": "s3://b/c.jpg"}]
    pq.write_table(pa.table({"image": pa.array(values, STRUCT)}), tmp_path / "images.parquet")
    assert items(tmp_path / "images.parquet", "image") == [Item(f"file://{tmp_path}/a.jpg"), Item(""), Item(""), Item("s3://b/c.jpg")]


@pytest.mark.parametrize("statistics", [True, False])
def test_where_some_rows_have_bytes_the_path_of_the_others_is_kept(tmp_path, statistics):
    values = [{"bytes": b"1", "path": "a.jpg"}, {"bytes": None, "path": "b.jpg"}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"image": pa.array(values, STRUCT)}), tmp_path / "images.parquet", write_statistics=statistics)
    found = items(tmp_path / "images.parquet", "image")
    assert [item.position for item in found] == [0, 1, 2]
    assert [item.link for item in found] == [f"file://{tmp_path}/a.jpg", f"file://{tmp_path}/b.jpg", None]


def test_one_image_has_one_uri_however_it_is_spelled(tmp_path):
    write(tmp_path, "in/a b.jpg")
    image = tmp_path / "in" / "a b.jpg"
    spelled = ["./a b.jpg", " a b.jpg ", "././a b.jpg", "x/../a b.jpg", f"{image}", f"file:{image}", f"file://localhost{image}"]
    spelled += [image.as_uri(), f"FILE://{tmp_path}//in/./a b.jpg"]
    (tmp_path / "in" / "x").mkdir()
    pq.write_table(pa.table({"uri": spelled}), tmp_path / "in" / "list.parquet")
    (listed,) = [item.uri for item in items(tmp_path / "in") if "b.jpg" in item.uri]
    assert [item.uri for item in items(tmp_path / "in" / "list.parquet")] == [listed] * len(spelled)


def test_columns_of_parquet_are_kept_with_their_values_whatever_its_batches_and_row_groups_are(tmp_path):
    count = 9000
    rows = [{"id": i, "tags": [f"t{j}" for j in range(i % 3)] if i % 5 else None, "at": {"x": i / 7, "n": None}} for i in range(count)]
    table = pa.Table.from_pylist(rows).append_column("uri", pa.array([f"{i}.jpg" if i % 11 else None for i in range(count)]))
    pq.write_table(table, tmp_path / "list.parquet", row_group_size=5000)
    assert kept(tmp_path / "list.parquet", "post=id", "tags", "at", "link=uri") == [
        (f"{row['id']}.jpg" if link else "", *row.values(), link) for row, link in zip(rows, table["uri"].to_pylist(), strict=True)
    ]


def test_columns_beside_image_bytes_are_kept_also_where_a_row_has_a_path_instead(tmp_path):
    images = [{"bytes": b"1", "path": None}, {"bytes": None, "path": "b.jpg"}, None, {"bytes": b"4", "path": "d.jpg"}]
    table = pa.table({"image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])), "id": range(4)})
    pq.write_table(table, tmp_path / "list.parquet", row_group_size=3)
    assert kept(tmp_path / "list.parquet", "id", column="image") == [(f"{i}", i) for i in range(4)]
    assert [item.link and item.link.rpartition("/")[2] for item in items(tmp_path / "list.parquet", "image")] == [None, "b.jpg", None, None]
    pq.write_table(table.set_column(0, "image", pa.array([b"1", None, b"3", b"4"])), tmp_path / "list.parquet")
    assert kept(tmp_path / "list.parquet", "id", column="image") == [(f"{i}", i) for i in range(4)]
    with pytest.raises(UserError, match=r"keep_columns: column 'image' of .*list.parquet holds the images: leave it out"):
        kept(tmp_path / "list.parquet", "data=image", column="image")


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "tsv"])
def test_a_column_that_the_table_lacks_is_named_with_those_that_it_has(tmp_path, kind):
    table = pd.DataFrame({"uri": ["a.jpg"], "post_id": [7], "user": ["u"]})
    path = tmp_path / f"list.{kind}"
    match kind:
        case "parquet":
            table.to_parquet(path)
        case "jsonl":
            table.to_json(path, orient="records", lines=True)
        case _:
            table.to_csv(path, index=False, sep="," if kind == "csv" else "\t")
    assert kept(path, "post_id") == [("a.jpg", 7 if kind == "parquet" else "7")]
    with pytest.raises(UserError, match=r"'postid' \(did you mean 'post_id'\?\); (it has|they have) uri, post_id, user"):
        kept(path, "user", "post=postid")


def test_files_whose_columns_are_of_other_types_are_refused(tmp_path):
    pq.write_table(pa.table({"uri": ["a.jpg"], "id": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"uri": ["b.jpg"], "id": pa.nulls(1)}), tmp_path / "b.parquet")
    assert kept(tmp_path, "id") == [("a.jpg", 1), ("b.jpg", None)]
    pq.write_table(pa.table({"uri": ["c.jpg"], "id": [1.0]}), tmp_path / "c.parquet")
    with pytest.raises(UserError, match=r"column 'id' of file://.*/c.parquet holds double, and int64 in the file before"):
        kept(tmp_path, "id")


def test_large_values_of_text_are_kept_some_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(uri_table, "TEXT", 1000)
    path = tmp_path / "list.csv"
    path.write_text("uri,text\n" + "".join(f"{i}.jpg,{'x' * 300}\n" for i in range(50)))
    found = list(source.list_items(str(path), "uri", {}, keep=Keep(["text"])))
    assert {len(item.kept.rows) for item in found} == {4, 2}
    assert [item.kept.rows.column("text")[item.kept.position].as_py() for item in found] == ["x" * 300] * 50


def test_a_list_without_columns_has_none_to_keep(tmp_path):
    with pytest.raises(UserError, match=r"list.txt holds one URI a line and no other column: save it as CSV with a header"):
        kept(write(tmp_path, "list.txt"), "id")
    with pytest.raises(UserError, match=r"keep_columns: .* holds images, which have no columns: name a table of URIs"):
        kept(write(tmp_path, "a.jpg"), "id")


def test_what_a_few_bytes_repeat_often_in_a_column_to_keep_takes_little_memory(tmp_path):
    def column(value, kind):
        return pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([value], kind))

    table = {"uri": column("s3://b/a.jpg", pa.string()), "text": column("x" * 60_000, pa.string())}
    pq.write_table(pa.table(table), tmp_path / "list.parquet", store_schema=False)
    before, most, count = pa.total_allocated_bytes(), 0, 0
    for item in source.list_items(str(tmp_path / "list.parquet"), "uri", {}, keep=Keep(["text"])):
        most, count = max(most, pa.total_allocated_bytes() - before), count + 1
        assert len(item.kept.rows) <= 64
    assert (count, most < 20 * 2**20) == (20_000, True)


def test_text_to_keep_that_is_not_in_utf8_is_refused(tmp_path):
    text = pa.Array.from_buffers(pa.string(), 2, [None, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xe9")])
    pq.write_table(pa.table({"uri": ["a.jpg", "b.jpg"], "text": text}), tmp_path / "list.parquet")
    assert names(tmp_path / "list.parquet") == ["a.jpg", "b.jpg"]
    with pytest.raises(UserError, match=r"list.parquet can't be read as a table: Invalid UTF8 sequence at string index 1$"):
        kept(tmp_path / "list.parquet", "text")
