"""Listing of folders, globs and single files, and what holds for every kind of source."""

import os
import re
from collections import Counter
from itertools import count
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.inputs import file_listing
from pipeline.inputs.item import Item, kept_rows
from pipeline.run.plan import prepare
from pipeline.sources import source
from pipeline.storage.left_out import MARKER, OUTPUT
from pipeline.storage.listing import File
from pipeline.table.kept_columns import Keep
from tests.plugins.listing import items, names, write


def test_a_folder_gives_all_its_files_in_the_order_of_their_paths(tmp_path):
    write(tmp_path, "b.jpg", "a/z.png", "a/deep/er/y")
    assert [item.uri for item in items(tmp_path)] == [f"file://{tmp_path}/{name}" for name in ("a/deep/er/y", "a/z.png", "b.jpg")]


def test_a_file_comes_with_its_size_and_a_version_that_changes_with_it(tmp_path):
    write(tmp_path, "a.jpg", data=b"12345")
    before = items(tmp_path)[0]
    os.utime(tmp_path / "a.jpg", (1, 1))
    after = items(tmp_path)[0]
    assert before.size == after.size == 5
    assert before.version != after.version


def test_hidden_files_and_folders_are_left_out(tmp_path):
    write(tmp_path, "a.jpg", ".a.jpg", "_SUCCESS", "_temporary/b.jpg", ".git/c.jpg", "x/_DSC0001.JPG")
    left_out = Counter()
    found = list(source.list_items(str(tmp_path), "uri", {}, left_out))
    assert [item.uri.rpartition("/")[2] for item in found] == ["a.jpg", "_DSC0001.JPG"]
    assert left_out == {MARKER: 4}


def test_a_folder_that_lies_within_a_hidden_one_can_be_read(tmp_path):
    write(tmp_path, "_inbox/.today/a.jpg")
    assert names(tmp_path / "_inbox" / ".today") == ["a.jpg"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "c.jpg"]),
        ("?.jpg", ["a.jpg", "b.jpg"]),
        ("[ab].jpg", ["a.jpg", "b.jpg"]),
        ("su[b]/c.jpg", ["c.jpg"]),
        ("s?b/*.jpg", ["c.jpg"]),
    ],
)
def test_a_glob_gives_the_files_it_matches_but_hidden_ones(tmp_path, pattern, found):
    write(tmp_path, "a.jpg", "b.jpg", "c.png", ".d.jpg", "sub/c.jpg", "sub/.e.jpg")
    assert names(tmp_path / pattern) == found


def test_a_folder_whose_name_looks_like_a_glob_is_a_folder(tmp_path):
    write(tmp_path, "holidays [2024]/a.jpg", "holidays [2024]/what?.jpg")
    assert names(tmp_path / "holidays [2024]") == ["a.jpg", "what?.jpg"]
    assert names(tmp_path / "holidays [2024]" / "what?.jpg") == ["what?.jpg"]


def test_images_come_while_the_listing_goes_on(tmp_path, monkeypatch):
    endless = (File(f"{tmp_path}/{i}.jpg", 1, "v") for i in count())
    monkeypatch.setattr(file_listing, "files_below", lambda *args: endless)
    found = source.list_items(str(tmp_path), "uri", {})
    assert [next(found) for _ in range(3)] == [Item(f"file://{tmp_path}/{i}.jpg", 1, "v") for i in range(3)]


def test_a_folder_that_can_not_be_listed_ends_it_and_is_not_left_out(tmp_path, monkeypatch):
    write(tmp_path, "a.jpg", "locked/b.jpg")
    local = type(fsspec.filesystem("file"))
    ls = local.ls

    def refuse(self, path, **options):
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return ls(self, path, **options)

    monkeypatch.setattr(local, "ls", refuse)
    with pytest.raises(UserError, match=r"can't be listed: .*Permission denied; check the credentials"):
        items(tmp_path)


def test_a_single_file_is_a_source_of_one(tmp_path):
    write(tmp_path, "a.jpg")
    assert names(tmp_path / "a.jpg") == ["a.jpg"]


def test_a_name_that_is_no_utf8_is_an_item_like_any_other(tmp_path):
    write(tmp_path, "a.jpg")
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    assert names(tmp_path) == ["a.jpg", "caf\\xe9.jpg"]


def test_other_storage_is_listed_alike():
    fsspec.filesystem("memory").pipe({"/source-test/a.jpg": b"1", "/source-test/x/b.jpg": b"22", "/source-test/.x/c.jpg": b"3"})
    assert [(item.uri, item.size) for item in items("memory://source-test")] == [
        ("memory:///source-test/a.jpg", 1),
        ("memory:///source-test/x/b.jpg", 2),
    ]


@pytest.mark.parametrize("name", ["nothing/here", "empty", "no*match/*.jpg"])
def test_a_path_at_which_there_is_nothing_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"nothing found at .*{re.escape(name)}: check the path") as error:
        items(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_table_without_rows_and_a_tar_without_images_hold_no_images(tmp_path, tar):
    pq.write_table(pa.table({"uri": pa.array([], pa.string())}), tmp_path / "list.parquet")
    tar(tmp_path / "x.tar", {"notes.txt": b"1"})
    for name in ("list.parquet", "x.tar"):
        with pytest.raises(UserError, match=f"{name} holds no images"):
            items(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("Delta", ["tables/a.parquet", "tables/_delta_log/00000000000000000000.json"]),
        ("Hudi", [".hoodie/hoodie.properties", "part-0.parquet"]),
        ("Iceberg", ["lake/data/0.parquet", "lake/metadata/v1.metadata.json"]),
    ],
)
def test_a_folder_with_a_table_with_a_log_is_refused_since_its_files_may_be_removed_ones(tmp_path, kind, files):
    write(tmp_path, *files)
    remedy = "write the URIs" if kind == "Hudi" else "name that folder"
    with pytest.raises(UserError, match=rf"a table of {kind} \(.*(_delta_log|\.hoodie|\.metadata\.json)\).*: {remedy}"):
        items(tmp_path)


@pytest.mark.parametrize(
    ("kind", "log", "file"),
    [("Delta", "_delta_log/0.json", "dt=1/a.parquet"), ("Iceberg", "metadata/00001-x.metadata.json", "data/dt=1/a.parquet")],
)
def test_part_of_a_table_with_a_log_is_never_read_as_loose_parquet(tmp_path, kind, log, file):
    write(tmp_path, log)
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"uri": ["a.jpg"]}), path)
    for part in (path, path.parent, f"{path.parent}/*.parquet", f"{tmp_path}/{{{file},{file}}}"):
        with pytest.raises(
            UserError, match=rf"is part of the {kind} table file://{tmp_path}, whose files may be removed ones: name file://"
        ):
            items(part)
    with pytest.raises(UserError, match=f"can't be read as an? {kind} table"):
        items(tmp_path)


@pytest.mark.parametrize("pattern", ["", "/**/*.jpg"])
def test_a_table_with_a_log_among_images_is_left_out_with_its_files(tmp_path, pattern):
    write(tmp_path, "a.jpg", "emotions/_delta_log/0.json", "emotions/part-0.parquet", "data/metadata/v1.metadata.json", "data/0.parquet")
    assert names(f"{tmp_path}{pattern}") == ["a.jpg"]


def test_a_table_with_a_log_beside_the_tables_that_are_chosen_is_not_in_the_way(tmp_path):
    write(tmp_path, "old/_delta_log/0.json", "old/part-0.parquet")
    (tmp_path / "new").mkdir()
    pq.write_table(pa.table({"uri": ["a.jpg"]}), tmp_path / "new" / "list.parquet")
    assert names(f"{tmp_path}/*w/*.parquet") == ["a.jpg"]


@pytest.mark.parametrize("spelled", ["{}/x/../photos", "{}//photos", "{}/./photos/", "{}/photos/./"])
def test_a_folder_has_one_path_however_it_is_spelled(tmp_path, spelled):
    write(tmp_path, "photos/a.jpg", "x/b.jpg")
    assert [item.uri for item in items(spelled.format(tmp_path))] == [f"file://{tmp_path}/photos/a.jpg"]


@pytest.mark.parametrize("name", ["x.tar", "x.parquet", "x.csv"])
def test_a_shard_or_table_whose_path_is_not_utf8_is_named(tmp_path, name, tar):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    tar(tmp_path / "x.tar", {"a.jpg": b"1"})
    pq.write_table(pa.table({"uri": ["a.jpg"]}), tmp_path / "x.parquet")
    (tmp_path / "x.csv").write_text("uri\na.jpg\n")
    os.rename(tmp_path / name, folder + b"/" + name.encode())
    with pytest.raises(UserError, match=rf"caf\\xe9/{name}: this path is not UTF-8: rename it"):
        items(os.fsdecode(folder))


def test_a_prefix_with_a_slash_is_a_prefix_also_where_an_object_has_its_name(s3):
    s3.put("both/images", b"an object")
    s3.put("both/images/a.jpg", b"1")
    s3.put("both/images2/b.jpg", b"1")
    found = [[item.uri for item in source.list_items(f"s3://{s3.bucket}/both/{name}", "uri", s3.options)] for name in ("images/", "images")]
    assert found == [[f"s3://{s3.bucket}/both/images/a.jpg"], [f"s3://{s3.bucket}/both/images"]]


def test_the_outputs_own_files_are_no_images_and_counted(tmp_path):
    own = ("annotations/dt=2026-11-23/p.parquet", "runs/r.html", "_work/r/plan.json", "index.html")
    write(tmp_path, "a.jpg", *(f"out/{name}" for name in own), "out/b.jpg", "runs/c.jpg")
    left_out = Counter()
    found = list(source.list_items(str(tmp_path), "uri", {}, left_out, str(tmp_path / "out")))
    assert [item.uri.removeprefix(f"file://{tmp_path}/") for item in found] == ["a.jpg", "out/b.jpg", "runs/c.jpg"]
    assert left_out == {OUTPUT: 4}


def test_braces_stand_for_several_paths(tmp_path, tar):
    for number in range(8, 12):
        tar(tmp_path / f"{number:03}.tar", {f"{number}.jpg": b"1"})
    write(tmp_path, "x/a.jpg", "y/b.jpg", "z/c.jpg")
    assert names(f"{tmp_path}/{{008..010}}.tar") == ["8.jpg", "9.jpg", "10.jpg"]
    assert names(f"{tmp_path}/{{y,x}}/*.jpg") == ["b.jpg", "a.jpg"]
    assert names(f"{tmp_path}/{{008..008}}.tar") == names(f"{tmp_path}/{{008,008}}.tar") == ["8.jpg"]
    with pytest.raises(UserError, match=r"nothing found at .*\{010\.\.012\}\.tar, as .*/012\.tar: check the path"):
        items(f"{tmp_path}/{{010..012}}.tar")


def test_a_protocol_that_is_unknown_names_the_one_that_was_meant():
    with pytest.raises(UserError, match="did you mean 's3://'"):
        items("s4://bucket/images")


@pytest.mark.parametrize(
    ("uri", "extra", "allowed"),
    [
        ("/data/list.csv", (), {"file", "local"}),
        ("local:///data", (), {"file", "local"}),
        ("s3://bucket/x", (), {"s3", "s3a"}),
        ("s3a://bucket/x", (), {"s3", "s3a"}),
        ("memory://x", ("https",), {"memory", "https"}),
    ],
)
def test_uris_may_point_to_their_sources_storage_by_all_its_names_and_to_what_is_allowed(uri, extra, allowed):
    assert source.allowed_protocols(uri, extra) == allowed


def test_the_uris_of_a_listing_are_always_allowed(tmp_path):
    write(tmp_path, "a.jpg")
    for uri in (str(tmp_path), f"file://{tmp_path}", f"local://{tmp_path}"):
        protocols = {item.uri.split(":")[0] for item in items(uri)}
        assert protocols <= source.allowed_protocols(uri, ())


def test_a_source_that_can_not_be_read_is_named_without_its_secrets(s3):
    for uri in ("s3://me:hunter2@nobodys-bucket/x", "https://me:hunter2@127.0.0.1:9/x.csv?X-Amz-Signature=hunter2"):
        with pytest.raises(UserError) as refused:
            list(source.list_items(uri, "uri", s3.options if uri.startswith("s3") else {}))
        assert "hunter2" not in str(refused.value)
        assert "\n" not in str(refused.value)


def test_every_kind_of_source_is_listed_through_faults(s3, failing, tar, tmp_path):
    tar(tmp_path / "x.tar", {f"{i}.jpg": b"%d" % i * 700 for i in range(30)})
    pq.write_table(pa.table({"uri": [f"{i}.jpg" for i in range(50)]}), tmp_path / "list.parquet", row_group_size=5)
    (tmp_path / "list.csv").write_text("uri\na.jpg\nb.jpg\n")
    s3.fs.pipe({f"{s3.bucket}/sources/folder/{i}.jpg": b"1" for i in range(5)})
    uris = [f"s3://{s3.bucket}/sources/folder", f"s3://{s3.bucket}/sources/folder/*.jpg"]
    uris += [s3.put(f"sources/{name}", (tmp_path / name).read_bytes()) for name in ("x.tar", "list.parquet", "list.csv")]
    expected = [list(source.list_items(uri, "uri", s3.options)) for uri in uris]
    assert [len(found) for found in expected] == [5, 5, 30, 50, 2]
    with failing(fraction=0.3, kinds=("slow_down", "internal_error", "reset", "short_length", "body_cut"), most=2) as (proxy, server):
        options = server.options | {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
        assert [list(source.list_items(uri, "uri", options)) for uri in uris] == expected
    assert proxy.failed.total() >= 3


def test_a_listing_is_never_an_old_one(s3):
    where = f"s3://{s3.bucket}/fresh"
    s3.put("fresh/a.jpg", b"1")
    assert len(list(source.list_items(where, "uri", s3.options))) == 1
    fsspec.filesystem("s3", **s3.options | {"use_ssl": False}).pipe_file(f"{s3.bucket}/fresh/b.jpg", b"1")  # by another instance
    assert len(list(source.list_items(where, "uri", s3.options))) == 2


def test_links_are_followed_to_files_and_one_that_leads_nowhere_is_missing(tmp_path, operators, images):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(images.jpeg(1))
    (tmp_path / "in" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "in" / "c.jpg").symlink_to("nowhere.jpg")
    assert names(tmp_path / "in") == ["a.jpg", "b.jpg", "c.jpg"]
    plan = prepare(AnnotateConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out")))
    loaded = operators.load(plan, 0)
    assert loaded.column("content_hash").null_count == 1
    assert loaded.column("status").to_pylist()[2] == "missing"


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "tar"])
def test_columns_are_kept_from_s3_as_from_a_disk(s3, some_posts, tmp_path, kind):
    path, column = some_posts(40).write(kind, tmp_path / "posts")
    name = f"kept/{Path(path).name}"
    s3.put(name, Path(path).read_bytes())
    found = [
        kept_rows(list(source.list_items(uri, column, options, keep=Keep(["post_id", "place"]))))
        for uri, options in ((path, {}), (f"s3://{s3.bucket}/{name}", s3.options))
    ]
    assert len(found[0]) > 20
    assert found[1].equals(found[0])
