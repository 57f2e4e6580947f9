"""What there is to annotate, out of every kind of source."""

import io
import json
import os
import tarfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import source
from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.plan import prepare


def items(uri, column="uri"):
    return list(source.items(str(uri), column, {}))


def names(uri, column="uri"):
    return [item.uri.rpartition("/")[2] for item in items(uri, column)]


def write(folder: Path, *files: str, data: bytes = b"x") -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    return folder


# --- folders, globs, files


def test_a_folder_gives_all_its_files_in_the_order_of_their_paths(tmp_path):
    write(tmp_path, "b.jpg", "a/z.png", "a/deep/er/y.txt")
    assert [item.uri for item in items(tmp_path)] == [f"file://{tmp_path}/{name}" for name in ("a/deep/er/y.txt", "a/z.png", "b.jpg")]


def test_a_file_comes_with_its_size_and_a_version_that_changes_with_it(tmp_path):
    write(tmp_path, "a.jpg", data=b"12345")
    before = items(tmp_path)[0]
    os.utime(tmp_path / "a.jpg", (1, 1))
    after = items(tmp_path)[0]
    assert before.size == after.size == 5
    assert before.version != after.version


def test_hidden_files_and_folders_are_left_out(tmp_path):
    write(tmp_path, "a.jpg", ".a.jpg", "_SUCCESS", "_temporary/b.jpg", ".git/c.jpg", "x/_d.jpg")
    assert names(tmp_path) == ["a.jpg"]


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
    write(tmp_path, "a.jpg", "b.jpg", "c.png", "_d.jpg", "sub/c.jpg", "sub/.e.jpg")
    assert names(tmp_path / pattern) == found


def test_a_folder_whose_name_looks_like_a_glob_is_a_folder(tmp_path):
    write(tmp_path, "holidays [2024]/a.jpg", "holidays [2024]/what?.jpg")
    assert names(tmp_path / "holidays [2024]") == ["a.jpg", "what?.jpg"]
    assert names(tmp_path / "holidays [2024]" / "what?.jpg") == ["what?.jpg"]


def test_images_come_while_the_listing_goes_on(tmp_path, monkeypatch):
    endless = (source.File(f"{tmp_path}/{i}.jpg", 1, "v") for i in count())
    monkeypatch.setattr(source, "files_below", lambda fs, folder: endless)
    found = source.items(str(tmp_path), "uri", {})
    assert [next(found) for _ in range(3)] == [source.Item(f"file://{tmp_path}/{i}.jpg", 1, "v") for i in range(3)]


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
    fsspec.filesystem("memory").pipe({"/source-test/a.jpg": b"1", "/source-test/x/b.jpg": b"22", "/source-test/_x/c.jpg": b"3"})
    assert [(item.uri, item.size) for item in items("memory://source-test")] == [
        ("memory:///source-test/a.jpg", 1),
        ("memory:///source-test/x/b.jpg", 2),
    ]


# --- tables of URIs


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
    assert items(path) == [source.Item(uri) for uri in uris]


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
    for item in source.items(str(tmp_path / "list.parquet"), "uri", {}):
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


# --- bytes within files


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


def test_tar_shards_give_their_images_with_the_bytes_they_lie_at(tmp_path, tar):
    tar(tmp_path / "shard-0.tar", {"./0/a.jpg": b"first", "0/a.json": b"{}", "0/a.txt": b"a cat", "b.PNG": b"second image"})
    tar(tmp_path / "shard-1.tar", {"c.webp": b"third"})
    found = items(tmp_path)
    shard = f"file://{tmp_path}/shard-"
    assert [item.uri for item in found] == [f"{shard}0.tar!/0/a.jpg", f"{shard}0.tar!/b.PNG", f"{shard}1.tar!/c.webp"]
    assert [Path(item.container).read_bytes()[item.position :][: item.size] for item in found] == [b"first", b"second image", b"third"]


def test_several_shards_are_read_at_once_and_not_too_far_ahead(tmp_path, tar, monkeypatch):
    for i in range(30):
        tar(tmp_path / f"{i:02}.tar", {f"{k}.jpg": b"%d" % k for k in range(i % 4 + 1)})
    lock, at_once = threading.Lock(), Counter()

    @contextmanager
    def opened(fs, name, info, ahead):
        with lock:
            at_once["now"] += 1
            at_once["most"] = max(at_once["most"], at_once["now"])
            at_once["ahead"] = max(at_once["ahead"], at_once["now"] * ahead)
        time.sleep(0.02)
        with open(name, "rb") as file:
            yield file
        with lock:
            at_once["now"] -= 1

    monkeypatch.setattr(source, "open_file", opened)
    assert names(tmp_path) == [f"{k}.jpg" for i in range(30) for k in range(i % 4 + 1)]
    assert 2 < at_once["most"] <= 8
    assert at_once["ahead"] <= 64 * 2**20


def test_a_shard_that_is_broken_is_named_after_those_before_it(tmp_path, tar):
    for i in range(20):
        tar(tmp_path / f"{i:02}.tar", {"a.jpg": b"1"})
    (tmp_path / "07.tar").write_bytes(b"no tar")
    found = source.items(str(tmp_path), "uri", {})
    assert [next(found).uri.rpartition("/")[0][-7:-1] for _ in range(7)] == [f"{i:02}.tar" for i in range(7)]
    with pytest.raises(UserError, match=r"07\.tar is no readable \.tar"):
        next(found)


def test_a_member_whose_name_is_no_utf8_is_an_item_like_any_other(tmp_path, tar):
    tar(tmp_path / "x.tar", {os.fsdecode(b"caf\xe9.jpg"): b"1"})
    assert names(tmp_path / "x.tar") == ["caf\\xe9.jpg"]


def test_folders_and_links_within_a_tar_are_no_images(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in (("d.jpg", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE), ("a.jpg", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info, io.BytesIO(b""))
    assert names(tmp_path / "x.tar") == ["a.jpg"]


def test_a_tar_among_other_files_is_a_file_that_is_no_image(tmp_path, tar):
    tar(tmp_path / "x.tar", {"a.jpg": b"1"})
    write(tmp_path, "b.jpg")
    assert names(tmp_path) == ["b.jpg", "x.tar"]


# --- what is wrong with a source


def broken_parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"uri": ["a"] * 100}), buffer)
    data = bytearray(buffer.getvalue())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[footer : footer + 20] = b"\xff" * 20
    return bytes(data)


def tar_header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """A member's header in GNU's format, whose size may be any, and a block of its data."""
    head = name.ljust(100, b"\0") + b"0000644\0" + bytes(16) + (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    rest = kind + bytes(100) + b"ustar  \0" + bytes(247)
    checksum = sum(head + bytes(12) + b" " * 8 + rest)
    return (head + bytes(12) + b"%06o\0 " % checksum + rest).ljust(1024, b"\0")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("nothing/here", None, "nothing is to be found at .*nothing/here: check the path"),
        ("empty/", None, "nothing is to be found at .*empty"),
        ("no*match/*.jpg", None, "nothing is to be found at"),
        ("list.csv", b"", "list.csv can't be read as a table: Empty CSV file"),
        ("list.csv", b"uri,b\na,1\nc,2,3\n", "list.csv can't be read as a table: CSV parse error"),
        ("list.csv", b"uri,uri\na,b\n", "list.csv has more than one column 'uri': rename one"),
        ("list.csv", b"uri\na\n" + b"x" * 70_000, "list.csv holds a URI of 70000 characters: name the column of URIs with --column"),
        ("list.csv", b"uri\ncaf\xe9.jpg\n", "list.csv can't be read as a table: column 'uri' is not in UTF-8"),
        ("list.csv", b"\xe9\nx.jpg\n", "list.csv can't be read as a table: 'utf-8' codec can't decode"),
        ("list.csv", b"url,b\na,1\n", r"list.csv has no column 'uri' \(did you mean 'url'\?\); it has url, b: name one with --column"),
        ("list.csv", b"uri,b\n1,1\n", "column 'uri' of .*list.csv holds int64, neither URIs nor image bytes: name another with --column"),
        ("list.jsonl", b'{"uri": "a"}\n{"uri": \n', "list.jsonl can't be read as a table: JSON parse error"),
        ("list.jsonl", b"null\n", "list.jsonl can't be read as a table: JSON parse error: a line is null"),
        ("list.jsonl", b'{"uri": "a"}\n' * 10 + b"\r\n \tnull\n", "list.jsonl can't be read as a table: JSON parse error: a line is null"),
        ("list.jsonl", b'{"uri": "\xe9"}\n', "list.jsonl can't be read as a table: "),
        ("list.jsonl", b'{"uri": ["a"]}\n', "column 'uri' of .*list.jsonl holds list"),
        ("list.parquet", b"PAR1 and no more", "list.parquet can't be read as a table"),
        ("list.parquet", broken_parquet(), "list.parquet can't be read"),
        ("x.tar", b"no tar at all" * 100, "x.tar is no readable .tar"),
        ("x.tar", b"", "x.tar is no readable .tar"),
        ("x.tar", tar_header(b"a.jpg", 2**80), "x.tar is no readable .tar: "),
        ("x.tar", tar_header(b"././@LongLink", 2**47, kind=b"L"), "x.tar is no readable .tar: "),
        ("x.tar", tar_header(b"././@LongLink", -512, kind=b"L"), "x.tar is no readable .tar: "),
    ],
)
def test_a_source_that_is_not_as_it_should_be_is_named(tmp_path, name, data, message):
    if name.endswith("/"):
        (tmp_path / name).mkdir()
    elif data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        items(f"{tmp_path}/{name}")
    assert "\n" not in str(error.value)


def test_a_tar_that_is_cut_off_is_no_tar(tmp_path, tar):
    tar(tmp_path / "x.tar", {"a.jpg": b"1" * 5000, "b.jpg": b"2" * 5000})
    data = (tmp_path / "x.tar").read_bytes()
    for length in (100, 3000, 512 + 5120 + 200, 512 + 5120 + 700):
        (tmp_path / "x.tar").write_bytes(data[:length])
        with pytest.raises(UserError, match=r"x.tar is no readable .tar"):
            items(tmp_path / "x.tar")


def test_a_tar_with_a_broken_header_does_not_lose_its_later_members_silently(tmp_path, tar):
    tar(tmp_path / "x.tar", {"a.jpg": b"1" * 500, "b.jpg": b"2" * 500})
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[1024:1100] = b"?" * 76
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(UserError, match="cut off or broken at byte 1024"):
        items(tmp_path / "x.tar")


def test_a_tar_whose_header_claims_more_than_there_can_be_is_no_tar(tmp_path, tar):
    tar(tmp_path / "x.tar", {"a.jpg": b"x"})
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[124:136] = b"\x80" + (2**80).to_bytes(11, "big")  # the size, in base 256
    data[156:157] = b"x"  # of a header that is read whole
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.tar is no readable \.tar"):
        items(tmp_path / "x.tar")


def test_a_tar_without_an_end_marker_is_whole(tmp_path, tar):
    tar(tmp_path / "x.tar", {"a.jpg": b"1" * 500})
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:1024])
    assert names(tmp_path / "x.tar") == ["a.jpg"]


def test_a_table_without_rows_and_a_tar_without_images_hold_no_images(tmp_path, tar):
    pq.write_table(pa.table({"uri": pa.array([], pa.string())}), tmp_path / "list.parquet")
    tar(tmp_path / "x.tar", {"notes.txt": b"1"})
    for name in ("list.parquet", "x.tar"):
        with pytest.raises(UserError, match=f"{name} holds no images"):
            items(tmp_path / name)


def test_a_protocol_that_is_unknown_names_the_one_that_was_meant():
    with pytest.raises(UserError, match="did you mean 's3://'"):
        items("s4://bucket/images")


# --- where URIs may point


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


# --- secrets, and paths that lead elsewhere


def test_a_tables_links_are_shown_without_their_secrets_and_kept_with_them(tmp_path):
    link = "https://me:hunter2@host/a.jpg?size=2&X-Amz-Signature=hunter2"
    plain, signed, again = items(csv(tmp_path, ["https://host/b.jpg?size=2", link, " HTTPS://host/c.jpg "]))
    assert (plain.uri, plain.link) == ("https://host/b.jpg?size=2", None)
    assert (signed.uri, signed.link) == ("https://host/a.jpg?size=2", link)
    assert again == source.Item("https://host/c.jpg")


@pytest.mark.parametrize(
    ("value", "uri"),
    [
        ("c/d.jpg", "https://host/lists/c/d.jpg"),
        ("../d.jpg?x=1", "https://host/d.jpg?x=1"),
        ("/d.jpg", "https://host/d.jpg"),
        ("//evil/d.jpg", "https://evil/d.jpg"),
        ("c.jpg?sig=hunter2", "https://host/lists/c.jpg"),
    ],
)
def test_a_relative_link_is_taken_from_its_tables_as_browsers_do(value, uri):
    (item,) = source._uris(pa.array([value]), "https://host/lists/list.csv?sig=hunter2/", fsspec.filesystem("https"))
    assert item.uri == uri
    assert "hunter2" not in item.uri


@pytest.mark.parametrize(
    "value", ["file:/etc/passwd", "..\\x", "../../../etc/passwd", "/etc/passwd", "c:\\x", "data:image/png;base64,AAAA"]
)
def test_a_path_in_a_table_elsewhere_stays_in_its_storage(value):
    fs = fsspec.filesystem("s3", anon=True)
    (item,) = source._uris(pa.array([value]), "bucket/lists/list.csv", fs)
    assert item.uri.startswith("s3://")


def test_a_source_that_can_not_be_read_is_named_without_its_secrets(s3):
    for uri in ("s3://me:hunter2@nobodys-bucket/x", "https://me:hunter2@127.0.0.1:9/x.csv?X-Amz-Signature=hunter2"):
        with pytest.raises(UserError) as refused:
            list(source.items(uri, "uri", s3.options if uri.startswith("s3") else {}))
        assert "hunter2" not in str(refused.value)
        assert "\n" not in str(refused.value)


# --- storage that misbehaves


def test_every_kind_of_source_is_listed_through_faults(s3, failing, tar, tmp_path):
    tar(tmp_path / "x.tar", {f"{i}.jpg": b"%d" % i * 700 for i in range(30)})
    pq.write_table(pa.table({"uri": [f"{i}.jpg" for i in range(50)]}), tmp_path / "list.parquet", row_group_size=5)
    (tmp_path / "list.csv").write_text("uri\na.jpg\nb.jpg\n")
    s3.fs.pipe({f"{s3.bucket}/sources/folder/{i}.jpg": b"1" for i in range(5)})
    uris = [f"s3://{s3.bucket}/sources/folder", f"s3://{s3.bucket}/sources/folder/*.jpg"]
    uris += [s3.put(f"sources/{name}", (tmp_path / name).read_bytes()) for name in ("x.tar", "list.parquet", "list.csv")]
    expected = [list(source.items(uri, "uri", s3.options)) for uri in uris]
    assert [len(found) for found in expected] == [5, 5, 30, 50, 2]
    with failing(fraction=0.3, kinds=("slow_down", "internal_error", "reset", "short_length", "body_cut"), most=2) as (proxy, server):
        options = server.options | {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
        assert [list(source.items(uri, "uri", options)) for uri in uris] == expected
    assert proxy.failed.total() >= 3


def test_a_listing_is_never_an_old_one(s3):
    where = f"s3://{s3.bucket}/fresh"
    s3.put("fresh/a.jpg", b"1")
    assert len(list(source.items(where, "uri", s3.options))) == 1
    fsspec.filesystem("s3", **s3.options | {"use_ssl": False}).pipe_file(f"{s3.bucket}/fresh/b.jpg", b"1")  # by another instance
    assert len(list(source.items(where, "uri", s3.options))) == 2


def test_links_are_followed_to_files_and_one_that_leads_nowhere_is_missing(tmp_path, operators, images):
    (tmp_path / "in" / "folder").mkdir(parents=True)
    (tmp_path / "in" / "a.jpg").write_bytes(images.jpeg(1))
    (tmp_path / "in" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "in" / "c.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "in" / "d").symlink_to("folder")
    assert names(tmp_path / "in") == ["a.jpg", "b.jpg", "c.jpg"]
    plan = prepare(AnnotateConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out")))
    loaded = operators.load(plan, 0)
    assert loaded.column("content_hash").null_count == 1
    assert loaded.column("status").to_pylist()[2] == "missing"


def test_files_of_one_name_in_a_tar_are_all_read(tmp_path, images):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for seed in (1, 2, 3):
            info = tarfile.TarInfo("a.jpg")
            info.size = len(images.jpeg(seed))
            tar.addfile(info, io.BytesIO(images.jpeg(seed)))
    found = items(tmp_path / "x.tar")
    assert [item.uri.rpartition("!")[2] for item in found] == ["/a.jpg", "/a.jpg#2", "/a.jpg#3"]
    assert len({item.position for item in found}) == 3
