"""Listing of Iceberg tables: their current rows, by folder, by metadata file and by catalog."""

import datetime as dt
import shutil
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.types import LongType, StringType

from pipeline.errors import UserError
from pipeline.inputs.item import kept_rows
from pipeline.sources.source import allowed_protocols, list_items
from pipeline.table.kept_columns import Keep
from tests.plugins.fetching import fetch_all, fetched, fetcher
from tests.plugins.iceberg_tables import data_files, delete_by_vector, delete_rows, local
from tests.plugins.listing import items, kept, names

BY_NAME = "iceberg://prod/lake.posts"


@pytest.fixture
def posts(catalog):
    """Return a function that creates a table with some rows in one file."""

    def create(rows: pa.Table, **settings):
        table = catalog.create_table("lake.posts", rows.schema, **settings)
        table.append(rows)
        return table

    return create


def newest(table) -> str:
    return max(str(path) for path in (local(table.location()) / "metadata").glob("*.metadata.json"))


def test_a_table_is_listed_by_its_folder_its_metadata_file_and_its_catalog(posts, tmp_path):
    table = posts(pa.table({"uri": ["a.jpg", "b/c.jpg", None], "id": [1, 2, 3]}))
    table.delete("id = 1")
    table.append(pa.table({"uri": ["s3://bucket/d.jpg"], "id": [4]}))
    folder = local(table.location())
    expected = [("", 3), ("c.jpg", 2), ("d.jpg", 4)]
    for spelled in (BY_NAME, folder, f"{folder}/", f"file://{folder}", newest(table)):
        assert sorted(kept(spelled, "id")) == expected
    assert f"file://{folder}/b/c.jpg" in {item.uri for item in items(BY_NAME)}
    earlier = sorted((folder / "metadata").glob("*.metadata.json"))[1]
    assert [row[1] for row in kept(earlier, "id")] == [1, 2, 3]
    assert allowed_protocols(BY_NAME, ()) == {"file", "local"}


def test_rows_that_position_deletes_mark_are_left_out(posts):
    table = posts(pa.table({"uri": list("abcdefg"), "image": [name.encode() for name in "abcdefg"]}))
    table.append(pa.table({"uri": list("hij"), "image": [b"h", b"i", b"j"]}))
    by_size = sorted(data_files(table), key=lambda path: pq.read_metadata(local(path)).num_rows)
    path = delete_rows(table, {by_size[1]: [0, 3], by_size[0]: [1]})
    assert sorted(names(path)) == list("bcefghj")
    assert names(path) == names(local(table.location()))
    assert sorted(fetch_all(path, "image")) == [name.encode() for name in "bcefghj"]
    assert sorted(names(BY_NAME)) == list("abcdefghij"), "the catalog does not know that commit"


def test_rows_that_a_deletion_vector_marks_are_left_out(posts):
    table = posts(pa.table({"uri": list("abcdefg")}))
    (file,) = data_files(table)
    assert names(delete_by_vector(table, file, 0, 5, 6)) == list("bcde")


def test_equality_deletes_are_refused_with_the_remedy(posts):
    table = posts(pa.table({"uri": ["a"]}))
    path = delete_rows(table, {"x": [1]}, content=2, equality_ids=[1])
    with pytest.raises(UserError, match=r"has equality deletes, which pyiceberg does not read: compact the table"):
        items(path)


def test_columns_are_found_by_their_ids_and_have_the_types_of_the_table(posts):
    rows = pa.table(
        {
            "uri": ["a.jpg", "b.jpg"],
            "image": [b"1", b"2"],
            "n": pa.array([1, None], pa.int32()),
            "at": pa.array([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), None]),
            "price": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
            "tags": [["x", None], None],
            "place": [{"name": "Rom", "lat": 41.9}, None],
            "old": ["x", "y"],
        }
    )
    table = posts(rows)
    with table.update_schema() as update:
        update.rename_column("image", "picture")
        update.rename_column("place.name", "town")
        update.rename_column("uri", "link")
        update.update_column("n", LongType())
        update.delete_column("old")
    with table.update_schema() as update:
        update.add_column("image", StringType())
        update.add_column("uri", StringType())
    table.append(
        pa.table({"link": ["c.jpg"], "picture": [b"3"], "n": [2**40], "image": ["i"], "uri": ["u"]}).cast(
            pa.schema([("link", pa.string()), ("picture", pa.binary()), ("n", pa.int64()), ("image", pa.string()), ("uri", pa.string())])
        )
    )
    found = sorted(kept(BY_NAME, "n", "at", "price", "tags", "place", "image", column="link"))
    assert found == [
        ("a.jpg", 1, dt.datetime(2024, 1, 1, tzinfo=dt.UTC), Decimal("1.50"), ["x", None], {"town": "Rom", "lat": 41.9}, None),
        ("b.jpg", None, None, None, None, None, None),
        ("c.jpg", 2**40, None, None, None, None, "i"),
    ]
    assert sorted(fetch_all(BY_NAME, "picture")) == [b"1", b"2", b"3"]
    with pytest.raises(UserError, match=r"iceberg://prod/lake.posts has no column 'old'"):
        kept(BY_NAME, "old", column="link")


def test_partitions_that_files_lack_are_kept_and_files_without_ids_are_read_by_names(catalog, tmp_path):
    schema = pa.schema([("uri", pa.string()), ("day", pa.date32()), ("n", pa.int64())])
    table = catalog.create_table("lake.posts", schema)
    with table.update_spec() as update:
        update.add_identity("day")
    folder = tmp_path / "hive"
    folder.mkdir()
    pq.write_table(pa.table({"uri": ["a.jpg", "b.jpg"], "day": [dt.date(2024, 1, 2)] * 2, "n": [1, 2]}, schema), folder / "whole.parquet")
    table.add_files([f"file://{folder}/whole.parquet"])
    pq.write_table(pa.table({"uri": ["a.jpg", "b.jpg"], "n": [1, 2]}), folder / "whole.parquet")  # as Hive writes it
    assert kept(BY_NAME, "day", "n") == [("a.jpg", dt.date(2024, 1, 2), 1), ("b.jpg", dt.date(2024, 1, 2), 2)]


def test_identity_partitions_are_kept(posts, catalog):
    rows = pa.table({"uri": ["a", "b", "c"], "day": [dt.date(2024, 1, 2), None, dt.date(2024, 1, 2)], "n": [1, 2, 3]})
    table = catalog.create_table("lake.posts", rows.schema)
    with table.update_spec() as update:
        update.add_identity("day")
    table.append(rows)
    assert len(data_files(table)) == 2
    assert sorted(kept(BY_NAME, "day", "n")) == [("a", dt.date(2024, 1, 2), 1), ("b", None, 2), ("c", dt.date(2024, 1, 2), 3)]


def test_the_newest_metadata_is_that_of_the_hint_or_of_the_highest_number(posts):
    table = posts(pa.table({"uri": ["a.jpg"]}))
    folder = local(table.location()) / "metadata"
    first = min(folder.glob("*.metadata.json"))
    for name in ("v3.metadata.json", "v12.metadata.json"):
        shutil.copy(newest(table), folder / name)
    (folder / "v12.metadata.json").write_text("broken")
    (folder / "version-hint.text").write_text("3")
    assert names(local(table.location())) == ["a.jpg"]
    (folder / "version-hint.text").unlink()
    with pytest.raises(UserError, match=r"posts can't be read as an Iceberg table: .*") as error:
        items(local(table.location()))
    assert "\n" not in str(error.value)
    shutil.copy(first, folder / "00012-other.metadata.json")
    with pytest.raises(UserError, match=r"has several newest metadata files \(.*\): name the one that its catalog states, or the table in"):
        items(local(table.location()))


def test_a_table_that_cannot_be_read_is_named_with_the_remedy(posts, monkeypatch):
    table = posts(pa.table({"uri": ["a.jpg"], "post_id": [1]}))
    for spelled, message in {
        "iceberg://prod/lake.post": r"the catalog prod has no table lake.post \(did you mean 'lake.posts'\?\)",
        "iceberg://prod/sea.posts": "the catalog prod has no table sea.posts",
        "iceberg://prod/posts": "iceberg://prod/posts names no table of a catalog: give iceberg://catalog/namespace.table",
        "iceberg://other/lake.posts": r"iceberg://other/lake.posts can't be read as an Iceberg table: .*PYICEBERG_CATALOG__OTHER__URI",
    }.items():
        with pytest.raises(UserError, match=message):
            items(spelled)
    with pytest.raises(UserError, match=r"posts has no column 'url' \(did you mean 'uri'\?\); it has uri, post_id: name one with --column"):
        items(BY_NAME, "url")
    with pytest.raises(UserError, match=r"has no column 'postid' \(did you mean 'post_id'\?\).*: name one with --keep-columns"):
        kept(BY_NAME, "postid")
    (file,) = data_files(table)
    local(file).unlink()
    with pytest.raises(UserError, match=rf"lake.posts lists a file that is gone: {local(file)}"):
        items(BY_NAME)
    monkeypatch.setattr("pipeline.sources.iceberg_table.find_spec", lambda name: None)
    for spelled in (BY_NAME, local(table.location())):
        with pytest.raises(UserError, match=r"an Iceberg table needs pyiceberg: pip install 'ugrie\[iceberg\]'"):
            items(spelled)


def test_a_table_without_rows_holds_no_images(catalog):
    catalog.create_table("lake.posts", pa.schema([("uri", pa.string())]))
    with pytest.raises(UserError, match="posts holds no images"):
        items(BY_NAME)


def test_a_table_in_s3_is_listed_and_read(s3, catalog):
    options = {"endpoint": s3.endpoint, "access-key-id": s3.key, "secret-access-key": s3.secret, "region": "us-east-1"}
    catalog.properties.update({f"s3.{name}": value for name, value in options.items()})
    rows = pa.table({"image": [b"1", b"2", b"3"], "n": [1, 2, 3]})
    table = catalog.create_table("lake.posts", rows.schema, location=f"s3://{s3.bucket}/iceberg/posts")
    table.append(rows)
    table.delete("n = 3")
    for spelled in (table.location(), f"s3://{s3.bucket}/iceberg/posts/"):
        found = list(list_items(spelled, "image", s3.options, keep=Keep(["n"])))
        assert kept_rows(found).to_pylist() == [{"n": 1}, {"n": 2}]
        assert fetched(fetcher(spelled, column="image", options=s3.options, timeout=60.0), *found) == [b"1", b"2"]
    with pytest.raises(UserError, match=r"is part of the Iceberg table s3://.*/posts, whose files may be removed ones"):
        list(list_items(f"{table.location()}/data/", "image", s3.options))


def test_files_in_another_storage_are_refused(posts):
    table = posts(pa.table({"uri": ["a"]}))
    path = Path(newest(table)).parent / "v7.metadata.json"
    path.write_text(Path(newest(table)).read_text().replace(f"{table.location()}/metadata/snap", "s3://elsewhere/snap"))
    with pytest.raises(UserError, match=r"posts can't be read as an Iceberg table: it has files in s3://, another storage"):
        items(path)
