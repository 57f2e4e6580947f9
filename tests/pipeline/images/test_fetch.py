"""Fetching of images: in order, within limits, each failure with its status."""

import threading

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.images import parquet_reader
from pipeline.inputs.item import Item
from pipeline.sources.source import list_items
from tests.plugins.fetching import fetch_all, fetched, fetcher, rows


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


def test_images_come_in_the_manifests_order_whatever_the_concurrency(tmp_path):
    for i in range(40):
        (tmp_path / f"{i:02}.jpg").write_bytes(b"%d" % i * (i + 1))
    expected = [b"%d" % i * (i + 1) for i in range(40)]
    assert fetch_all(tmp_path, concurrency=1) == expected
    assert fetch_all(tmp_path, concurrency=16) == expected


def test_several_images_are_fetched_at_once_and_few_are_held(memory, monkeypatch):
    together = threading.Barrier(3, timeout=20)
    begun = []

    def cat_file(self, path, start=None, end=None):
        begun.append(path)
        if len(begun) <= 3:
            together.wait()  # passes only if three are in flight at the same time
        return b"x"

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    stream = fetcher("memory://f").fetch(rows(*(Item(f"memory://f/{i}", 1) for i in range(50))))
    assert next(stream)[1] == b"x"
    assert len(begun) <= 7
    assert len(list(stream)) == 49


@pytest.mark.parametrize("where", ["local", "memory"])
def test_one_bad_image_does_not_hurt_its_neighbours(where, tmp_path, memory):
    base = str(tmp_path) if where == "local" else "memory:///fetch"
    fs, path = fsspec.core.url_to_fs(base)
    fs.pipe({f"{path}/a.jpg": b"good", f"{path}/large.jpg": b"1" * 2000, f"{path}/short.jpg": b"123", f"{path}/b.jpg": b"good too"})
    uri = f"file://{path}" if where == "local" else "memory://" + path
    found = [
        Item(f"{uri}/a.jpg", 4),
        Item(f"{uri}/gone.jpg", 4),
        Item(f"{uri}/gone_too.jpg"),
        Item(f"{uri}/large.jpg", 2000),
        Item(f"{uri}/large.jpg"),
        Item(f"{uri}/short.jpg", 10),
        Item(f"{uri}/empty.jpg", 0),
        Item(""),
        Item(f"{uri}/b.jpg"),
    ]
    assert fetched(fetcher(base), *found) == [
        b"good",
        ("missing", "there is no such object"),
        ("missing", "there is no such object"),
        ("too_large", "2000 bytes, more than max_bytes = 1000"),
        ("too_large", "1001 bytes, more than max_bytes = 1000"),
        ("truncated", "3 bytes came of 10, asked 4 times"),
        ("not_an_image", "the file is empty"),
        ("missing", "the table's row has no URI"),
        b"good too",
    ]


def test_a_file_of_just_the_limit_is_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1" * 1000)
    assert fetched(fetcher(tmp_path), Item(f"file://{tmp_path}/a.jpg")) == [b"1" * 1000]
    assert fetched(fetcher(tmp_path), Item(f"file://{tmp_path}/a.jpg", 1000)) == [b"1" * 1000]


def test_a_folder_in_the_place_of_a_file_is_no_image(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    assert fetched(fetcher(tmp_path), Item(f"file://{tmp_path}/x.jpg")) == [("not_an_image", "a folder")]


@pytest.mark.parametrize(
    "uri", ["file:///etc/hostname", "/etc/hostname", "FILE:///etc/hostname", "local:///etc/hostname", "http://127.0.0.1:9/x"]
)
def test_a_table_elsewhere_may_not_point_to_files_of_the_workers_or_to_their_network(memory, uri):
    (outcome,) = fetched(fetcher("memory://lists/list.csv"), Item(uri))
    assert outcome[0] == "forbidden"
    assert "the table may point to memory, not to" in outcome[1]
    assert "--allow-protocols" in outcome[1]


def test_a_table_may_point_to_storage_that_is_allowed(memory, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"mine")
    assert fetched(fetcher("memory://lists/list.csv", allow=("file",)), Item(f"file://{tmp_path}/a.jpg")) == [b"mine"]


def test_a_uri_of_storage_that_is_unknown_is_a_row_that_says_so():
    ((status, message),) = fetched(fetcher("memory://list.csv", allow=("s4",)), Item("s4://bucket/a.jpg"))
    assert status == "unreadable"
    assert "s4://" in message


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (PermissionError("no key"), ("forbidden", "access denied: no key")),
        (TimeoutError(), ("timeout", "not read within 0.05 s")),
        (fsspec.exceptions.FSTimeoutError(), ("timeout", "not read within 0.05 s")),
        (ConnectionResetError("reset by peer"), ("unreadable", "ConnectionResetError: reset by peer")),
        (OSError(28, "No space left on device"), ("unreadable", "OSError: [Errno 28] No space left on device")),
        (ValueError("of the client's own"), ("unreadable", "ValueError: of the client's own")),
    ],
)
def test_whatever_the_store_raises_is_this_images_failure(memory, monkeypatch, raised, outcome):
    def cat_file(self, path, start=None, end=None):
        raise raised

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    ((status, message),) = fetched(fetcher("memory://f", timeout=0.05), Item("memory://f/a.jpg", 3))
    assert (status, message.partition(", asked")[0]) == outcome


def test_the_members_of_a_tar_are_read_out_of_it(tmp_path, tar):
    members = {"a.jpg": b"first", "a.json": b"{}" * 400, "b.jpg": b"second" * 100, "c.jpg": b"", "d.jpg": b"4" * 1001}
    tar(tmp_path / "x.tar", members)
    assert fetch_all(tmp_path / "x.tar") == [
        b"first",
        b"second" * 100,
        ("not_an_image", "the file is empty"),
        ("too_large", "1001 bytes, more than max_bytes = 1000"),
    ]


def test_a_shard_that_has_gone_or_shrunk_fails_its_members(tmp_path, tar):
    tar(tmp_path / "x.tar", {"a.jpg": b"1" * 500, "b.jpg": b"2" * 600})
    found = list(list_items(str(tmp_path / "x.tar"), "uri", {}))
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:1800])
    assert [status for status, _ in fetched(fetcher(tmp_path / "x.tar"), *found)] == ["changed"] * 2
    first, second = fetched(fetcher(tmp_path / "x.tar"), *(item._replace(version="") for item in found))
    assert first == b"1" * 500
    assert second == ("truncated", "264 bytes came of 600, asked 4 times")
    (tmp_path / "x.tar").unlink()
    assert fetched(fetcher(tmp_path / "x.tar"), *found) == [("missing", "there is no such object")] * 2


@pytest.mark.parametrize("kind", ["binary", "Hugging Face"])
def test_the_bytes_of_a_parquets_rows_are_read_out_of_it(tmp_path, kind):
    values = [b"first", None, b"", b"4" * 1001, b"fifth", b"sixth"]
    column = pa.array(values, pa.binary())
    if kind != "binary":
        structs = [{"bytes": value, "path": "x.jpg"} for value in values]
        column = pa.array(
            [None if i == 1 else value for i, value in enumerate(structs)], pa.struct({"bytes": pa.binary(), "path": pa.string()})
        )
    pq.write_table(pa.table({"image": column}), tmp_path / "images.parquet", row_group_size=2)
    no_bytes = "the table's row has no bytes"
    assert fetch_all(tmp_path / "images.parquet", "image") == [
        b"first",
        ("missing", no_bytes),
        ("not_an_image", no_bytes),
        ("too_large", "1001 bytes, more than max_bytes = 1000"),
        b"fifth",
        b"sixth",
    ]


def test_any_rows_of_any_parquets_come_in_the_order_asked(tmp_path):
    for name in "ab":
        pq.write_table(
            pa.table({"image": [b"%s%d" % (name.encode(), i) for i in range(9)]}), tmp_path / f"{name}.parquet", row_group_size=4
        )
    found = list(list_items(str(tmp_path), "image", {}))
    chosen = [found[i] for i in (17, 3, 4, 9, 0, 8)]
    assert fetched(fetcher(tmp_path, column="image"), *chosen) == [b"b8", b"a3", b"a4", b"b0", b"a0", b"a8"]


def test_a_parquet_that_broke_since_it_was_listed_fails_its_rows_only(tmp_path):
    for name in "ab":
        pq.write_table(pa.table({"image": [name.encode()]}), tmp_path / f"{name}.parquet")
    found = list(list_items(str(tmp_path), "image", {}))
    (tmp_path / "a.parquet").write_bytes(b"gone")
    (status, _), good = fetched(fetcher(tmp_path, column="image"), *found)
    assert (status, good) == ("changed", b"b")
    (status, message), good = fetched(fetcher(tmp_path, column="image"), *(item._replace(version="") for item in found))
    assert (status, good) == ("unreadable", b"b")
    assert message.startswith("ArrowInvalid: ")


def test_rows_come_with_their_bytes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"mine")
    ((row, data),) = fetcher(tmp_path).fetch(rows(*list_items(str(tmp_path), "uri", {})))
    assert (row["uri"], row["size"], data) == (f"file://{tmp_path}/a.jpg", 4, b"mine")


def test_no_rows_are_no_work(tmp_path):
    assert list(fetcher(tmp_path).fetch([])) == []


def test_an_error_that_is_of_no_image_is_not_hidden(tmp_path):
    with pytest.raises(KeyError):
        list(fetcher(tmp_path).fetch([{"image_id": 1, "container": None}]))


@pytest.mark.parametrize(
    "uri",
    [
        *("s3://x::file:///etc/hostname", "simplecache::file:///etc/hostname", "memory://x::file:///etc/hostname"),
        *("memory::file:///etc/hostname", "file:///etc/hostname", "filecache://x::file:///etc/hostname"),
    ],
)
def test_a_uri_is_never_a_chain_to_other_storage(memory, uri):
    ((status, _),) = fetched(fetcher("memory://lists/list.csv"), Item(uri))
    assert status in ("forbidden", "missing")


def test_a_name_may_hold_what_elsewhere_would_chain(tmp_path):
    (tmp_path / "a::b.jpg").write_bytes(b"mine")
    assert fetch_all(tmp_path) == [b"mine"]


def test_a_row_of_a_table_without_bytes_is_read_from_its_path(tmp_path):
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    values = [(b"1", "gone.jpg"), (None, "a.jpg"), (None, "gone.jpg"), (None, None), (b"5", None), (None, "https://host/a.jpg")]
    images = pa.array([dict(zip(("bytes", "path"), value, strict=True)) for value in values], struct)
    pq.write_table(pa.table({"image": images}), tmp_path / "images.parquet")
    (tmp_path / "a.jpg").write_bytes(b"mine")
    found = fetch_all(tmp_path / "images.parquet", "image")
    assert found[:2] + found[4:5] == [b"1", b"mine", b"5"]
    only = f"the table's row has no bytes, only the path file://{tmp_path}/gone.jpg"
    assert found[2] == ("missing", f"{only}: there is no such object")
    assert found[3] == ("missing", "the table's row has no bytes")
    assert (found[5][0], found[5][1].partition(": ")[0]) == ("forbidden", "the table's row has no bytes, only the path https://host/a.jpg")


def test_a_row_without_bytes_has_no_version_though_its_table_has_one(monkeypatch):
    asked = []
    found = fetcher("s3://bucket/images.parquet")
    monkeypatch.setattr(type(found.reader), "read_image", lambda self, row, timeout: asked.append(row) or b"image")
    row = {
        "uri": "s3://bucket/images.parquet!/1",
        "link": "s3://bucket/a.jpg",
        "version": "etag-of-the-table",
        "container": "x",
        "position": 1,
    }
    assert found._path_value(row) == b"image"
    assert [(row["uri"], row["version"], row["container"]) for row in asked] == [("s3://bucket/a.jpg", "", None)]


def test_a_value_of_gigabytes_in_a_few_bytes_is_too_large_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_reader, "MAX_PAGE", 2**20)
    images = pa.array([b"1", b"2", b"x" * 50 * 2**20, b"4", b"5", b"6"])
    layout = {"compression": "zstd", "use_dictionary": False, "write_batch_size": 1, "data_page_size": 1}
    pq.write_table(pa.table({"image": images}), tmp_path / "images.parquet", row_group_size=4, **layout)
    del images
    before = pa.total_allocated_bytes()
    found = fetch_all(tmp_path / "images.parquet", "image")
    assert found[:2] + found[4:] == [b"1", b"2", b"5", b"6"]
    assert [status for status, _ in found[2:4]] == ["too_large"] * 2
    assert "unpacks to 52,428,8" in found[2][1]
    assert pa.total_allocated_bytes() - before < 3 * 2**20


def test_an_image_that_repeats_in_a_dictionary_is_held_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_reader, "MAX_PAGE", 2**20)
    image = b"x" * 500_000
    pq.write_table(pa.table({"image": [image] * 60}), tmp_path / "images.parquet", compression="zstd")
    monkeypatch.setattr(parquet_reader, "MAX_REQUEST_BYTES", 2**30)  # a footer may lie about sizes
    most = [0]
    for _, data in fetcher(tmp_path / "images.parquet", column="image", max_bytes=10**6).fetch(
        rows(*list_items(str(tmp_path / "images.parquet"), "image", {}))
    ):
        assert data == image
        most.append(pa.total_allocated_bytes())
    assert max(most) < 8 * 2**20
