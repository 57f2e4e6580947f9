"""Image bytes through fsspec: in order, within limits, each failure named."""

import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline import source
from pipeline.errors import StorageError
from pipeline.fetch import Fetcher
from pipeline.manifest import image_id
from pipeline.source import Item, allowed_protocols, items
from tests.faults import BODIES, READING


def fetcher(source, **settings):
    allowed = settings.pop("allow", ())
    defaults = {"column": "uri", "options": {}, "max_bytes": 1000, "timeout": 10.0, "concurrency": 3, "first_wait": 0.001}
    return Fetcher(input=str(source), protocols=allowed_protocols(str(source), allowed), **defaults | settings)


def rows(*found):
    return [{"image_id": image_id(item), **vars(item)} for item in found]


def fetched(fetch, *found):
    """The bytes, or the status and message, of each."""
    return [data if isinstance(data, bytes) else (data.status, str(data)) for _, data in fetch.fetch(rows(*found))]


def fetch_all(source, column="uri", **settings):
    return fetched(fetcher(source, column=column, **settings), *items(str(source), column, {}))


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
    found = list(items(str(tmp_path / "x.tar"), "uri", {}))
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:1800])
    assert [status for status, _ in fetched(fetcher(tmp_path / "x.tar"), *found)] == ["changed"] * 2
    first, second = fetched(fetcher(tmp_path / "x.tar"), *(replace(item, version="") for item in found))
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
    found = list(items(str(tmp_path), "image", {}))
    chosen = [found[i] for i in (17, 3, 4, 9, 0, 8)]
    assert fetched(fetcher(tmp_path, column="image"), *chosen) == [b"b8", b"a3", b"a4", b"b0", b"a0", b"a8"]


def test_a_parquet_that_broke_since_it_was_listed_fails_its_rows_only(tmp_path):
    for name in "ab":
        pq.write_table(pa.table({"image": [name.encode()]}), tmp_path / f"{name}.parquet")
    found = list(items(str(tmp_path), "image", {}))
    (tmp_path / "a.parquet").write_bytes(b"gone")
    (status, _), good = fetched(fetcher(tmp_path, column="image"), *found)
    assert (status, good) == ("changed", b"b")
    (status, message), good = fetched(fetcher(tmp_path, column="image"), *(replace(item, version="") for item in found))
    assert (status, good) == ("unreadable", b"b")
    assert message.startswith("ArrowInvalid: ")


def test_rows_come_with_their_bytes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"mine")
    ((row, data),) = fetcher(tmp_path).fetch(rows(*items(str(tmp_path), "uri", {})))
    assert (row["uri"], row["size"], data) == (f"file://{tmp_path}/a.jpg", 4, b"mine")


def test_no_rows_are_no_work(tmp_path):
    assert list(fetcher(tmp_path).fetch([])) == []


def test_an_error_that_is_of_no_image_is_not_hidden(tmp_path):
    with pytest.raises(KeyError):
        list(fetcher(tmp_path).fetch([{"image_id": 1, "container": None}]))


# --- storage that misbehaves


@pytest.fixture(scope="module")
def many(s3, images):
    """60 images in S3, and their bytes."""
    contents = [images.jpeg(i, 64, 48) for i in range(60)]
    s3.fs.pipe({f"{s3.bucket}/many/{i:02}.jpg": data for i, data in enumerate(contents)})
    return f"s3://{s3.bucket}/many", contents


def through(where, server, **settings):
    """A fetcher that sees S3 through a proxy, and the rows of a source as they are listed without it."""
    defaults = {"options": server.options, "max_bytes": 10**6, "concurrency": 16, "first_wait": 0.01, "timeout": 9.0}
    return fetcher(where, **defaults | settings)


@pytest.mark.parametrize("kinds", [READING, ("stall",), BODIES], ids=["all", "stalls", "bodies"])
def test_every_image_comes_through_faults_of_a_fifth_of_the_requests(many, s3, failing, kinds):
    where, contents = many
    found = list(items(where, "uri", s3.options))
    with failing(fraction=0.2, kinds=kinds, most=2) as (proxy, server):
        assert fetched(through(where, server), *found) == contents
    assert proxy.failed.total() >= 8
    assert proxy.count("GET") >= 60 + proxy.failed.total()


def test_an_image_is_one_request_and_nothing_else(many, s3, failing, images, tar, tmp_path):
    where, contents = many
    with failing() as (proxy, server):
        assert fetched(through(where, server), *items(where, "uri", s3.options)) == contents
        assert set(proxy.requests.values()) == {1}
        assert (proxy.count("GET", "/many/"), proxy.count("HEAD"), proxy.requests.total()) == (60, 0, 60)
        proxy.requests.clear()
        tar(tmp_path / "x.tar", {f"{i}.jpg": data for i, data in enumerate(contents[:9])})
        shard = s3.put("shards/one.tar", (tmp_path / "x.tar").read_bytes())
        assert fetched(through(shard, server), *items(shard, "uri", s3.options)) == contents[:9]
        assert (proxy.count("GET"), proxy.requests.total()) == (9, 9)


def test_what_keeps_failing_is_named_and_hurts_no_neighbour(many, s3, failing):
    where, contents = many
    always = {
        "/00.jpg": "slow_down",
        "/01.jpg": "stall",
        "/02.jpg": "short_length",
        "/03.jpg": "body_cut",
        "/04.jpg": "denied",
        "/05.jpg": "internal_error",
        "/06.jpg": "body_stall",
        "/07.jpg": "reset",
        "/08.jpg": "expired",
    }
    found = list(items(where, "uri", s3.options))
    clock = time.monotonic()
    with failing(always=always) as (_, server):
        outcomes = fetched(through(where, server, timeout=3.0), *found)
    assert time.monotonic() - clock < 6
    assert outcomes[9:] == contents[9:]
    assert [status for status, _ in outcomes[:9]] == [
        *("unreadable", "timeout", "truncated", "truncated", "forbidden", "unreadable", "timeout", "unreadable", "forbidden")
    ]
    assert "reduce your request rate" in outcomes[0][1]
    assert outcomes[1][1].startswith("not read within 3 s, asked ")
    assert outcomes[2][1].endswith(f"bytes came of {len(contents[2])}, asked 4 times")
    assert outcomes[4][1] == "access denied: Access Denied."


def test_one_object_that_is_denied_is_a_row_and_is_asked_for_once(many, s3, failing):
    where, _ = many
    with failing(always={"/00.jpg": "denied"}) as (proxy, server):
        (outcome,) = fetched(through(where, server), *list(items(where, "uri", s3.options))[:1])
    assert outcome == ("forbidden", "access denied: Access Denied.")
    assert proxy.requests.total() == 1


def test_credentials_that_ran_out_end_the_run_and_are_no_rows(many, s3, failing):
    where, _ = many
    found = list(items(where, "uri", s3.options))
    with failing(always={"/": "expired"}) as (proxy, server), pytest.raises(StorageError) as stopped:
        fetched(through(where, server), *found)
    message = r"the credentials for s3://images/many/\d\d.jpg are expired or wrong \(ExpiredToken\): renew them; the same --run-id goes on"
    assert re.fullmatch(message, str(stopped.value))
    assert len([path for _, path in proxy.requests if "/many/" in path]) <= 40  # those under way; the rest are not begun
    assert max(count for (_, path), count in proxy.requests.items() if "/many/" in path) == 4


def test_an_object_that_is_not_the_one_that_was_listed_says_so(s3, images):
    where = f"s3://{s3.bucket}/altered"
    for name in ("equal", "grown", "shrunk", "emptied", "gone", "same"):
        s3.put(f"altered/{name}.jpg", b"1" * 500)
    found = list(items(where, "uri", s3.options))
    for name, data in {"equal": b"2" * 500, "grown": b"1" * 600, "shrunk": b"1" * 400, "emptied": b"", "same": b"1" * 500}.items():
        s3.put(f"altered/{name}.jpg", data)
    s3.fs.rm(f"{s3.bucket}/altered/gone.jpg")
    outcomes = dict(zip((item.uri.rpartition("/")[2] for item in found), fetched(through(where, s3), *found), strict=True))
    assert outcomes.pop("same.jpg") == b"1" * 500
    assert outcomes.pop("gone.jpg") == ("missing", "there is no such object")
    assert {status for status, _ in outcomes.values()} == {"changed"}
    assert {message for _, message in outcomes.values()} == {"not the object that was listed any more; the next listing will have it"}


def test_shards_and_tables_that_were_written_anew_fail_their_rows(s3, tar, tmp_path):
    for name, fill in (("old.tar", b"1"), ("new.tar", b"2")):
        tar(tmp_path / name, {"a.jpg": fill * 500})
    for name, fill in (("old.parquet", b"1"), ("new.parquet", b"2")):
        pq.write_table(pa.table({"image": [fill * 500]}), tmp_path / name)
    for kind, column in (("tar", "uri"), ("parquet", "image")):
        uri = s3.put(f"anew/x.{kind}", (tmp_path / f"old.{kind}").read_bytes())
        found = list(items(uri, column, s3.options))
        assert fetched(through(uri, s3, column=column), *found) == [b"1" * 500]
        s3.put(f"anew/x.{kind}", (tmp_path / f"new.{kind}").read_bytes())
        assert [status for status, _ in fetched(through(uri, s3, column=column), *found)] == ["changed"]


def test_a_local_file_that_was_written_anew_says_so(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1" * 500)
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    found = [item for name in ("a.jpg", "link.jpg") for item in items(str(tmp_path / name), "uri", {})]
    assert fetched(fetcher(tmp_path), *found) == [b"1" * 500] * 2
    for data in (b"2" * 500, b"1" * 600, b"1" * 400):
        (tmp_path / "a.jpg").write_bytes(data)
        os.utime(tmp_path / "a.jpg", (len(data), 7))
        assert [outcome[0] for outcome in fetched(fetcher(tmp_path), *found)] == ["changed"] * 2


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert fetched(fetcher(tmp_path), Item(f"file://{tmp_path}/pipe.jpg")) == [("not_an_image", "a device or a pipe, no file")]


def test_the_rows_of_a_parquet_come_through_faults(s3, failing, tmp_path):
    values = [b"%d" % i * 500 for i in range(200)]
    pq.write_table(pa.table({"image": values}), tmp_path / "x.parquet", row_group_size=10, compression="none")
    uri = s3.put("faulty/x.parquet", (tmp_path / "x.parquet").read_bytes())
    with failing(fraction=0.3, kinds=("slow_down", "internal_error", "reset", "short_length", "body_cut"), most=2) as (proxy, server):
        found = list(items(uri, "image", server.options))
        assert fetched(through(uri, server, column="image"), *found) == values
    assert proxy.failed.total() > 0


# --- links


class Web(BaseHTTPRequestHandler):
    """What a table's links lead to; the path says what it does."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, Message]]] = []

    def do_GET(self):
        self.seen.append((self.path, self.headers))
        what, _, argument = self.path.partition("?")[0].strip("/").partition("/")
        if what == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://" + unquote(argument))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif what == "status" or (what == "flaky" and sum(path == self.path for path, _ in self.seen) < 3):
            self.send_error(int(argument) if what == "status" else 503)
        elif what == "endless":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 65536)
        elif what == "trickle":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)
        else:
            body = what.encode() * 10
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    """The address of a web server."""
    Web.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def linked(source, *links, **settings):
    defaults = {"allow": ("http", "https"), "timeout": 1.0, "first_wait": 0.01}
    return fetched(fetcher(source, **defaults | settings), *(Item(link) for link in links))


def test_the_links_of_a_table_on_the_same_server_are_fetched(web):
    good, gone, gone_for_good, secret, flaky, broken = linked(
        f"{web}/list.csv", f"{web}/a.jpg", *(f"{web}/status/{n}" for n in (404, 410, 403)), f"{web}/flaky", f"{web}/status/500"
    )
    assert (good, flaky) == (b"a.jpg" * 10, b"flaky" * 10)
    assert (gone, gone_for_good) == (("missing", "there is no such object"),) * 2
    assert secret[0] == "forbidden"
    assert broken[0] == "unreadable"
    assert broken[1].endswith("asked 4 times")


def test_a_body_without_an_end_is_cut_off_by_size_or_by_time(web):
    clock = time.monotonic()
    endless, trickle = linked(f"{web}/list.csv", f"{web}/endless", f"{web}/trickle")
    assert endless == ("too_large", "1001 bytes, more than max_bytes = 1000")
    assert trickle[0] == "timeout"
    assert time.monotonic() - clock < 2


@pytest.mark.parametrize("where", ["memory://list.csv", "/data/list.csv", "s3://bucket/list.csv"])
def test_a_link_may_not_lead_to_this_machine(web, where):
    assert {status for status, _ in linked(where, f"{web}/a.jpg", web.replace("127.0.0.1", "localhost"), "http://[::1]:9/")} == {
        "forbidden"
    }
    assert Web.seen == []


def test_a_redirect_may_not_lead_to_this_machine_or_to_metadata_either(web):
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as other:  # it listens, though nobody answers
        targets = (f"127.0.0.1:{other.server_address[1]}/x", "169.254.169.254/latest/meta-data", "[fd00:ec2::254]/x", "[::ffff:7f00:1]:9/x")
        outcomes = linked(f"{web}/list.csv", *(f"{web}/redirect/{target}" for target in targets), f"{web}/redirect/{web[7:]}/b.jpg")
    assert {status for status, _ in outcomes[:-1]} == {"forbidden"}
    assert all("an address that tables may not reach" in message for _, message in outcomes[:-1])
    assert outcomes[-1] == b"b.jpg" * 10


def test_the_users_password_goes_to_the_users_server_only(web):
    options = {"client_kwargs": {"headers": {"Authorization": "Bearer hunter2"}}}
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        elsewhere = fetcher(f"{web}/list.csv", options=options, first_wait=0.01)
        elsewhere._web.__dict__["trusted"] += (("127.0.0.1", other.server_address[1]),)  # else it is not reached at all
        there = f"http://127.0.0.1:{other.server_address[1]}/b.jpg"
        assert fetched(elsewhere, Item(f"{web}/a.jpg"), Item(there)) == [b"a.jpg" * 10, b"b.jpg" * 10]
        other.shutdown()
    assert {path: headers.get("Authorization") for path, headers in Web.seen} == {"/a.jpg": "Bearer hunter2", "/b.jpg": None}
    assert "hunter2" not in repr(elsewhere)


def test_a_signed_link_is_fetched_by_its_signature_and_shown_without(web):
    (item,) = source._uris(pa.array([f"{web}/status/500?size=2&X-Amz-Signature=hunter2"]), "list.csv", fsspec.filesystem("file"))
    assert item.uri == f"{web}/status/500?size=2"
    ((row, error),) = fetcher(f"{web}/list.csv", first_wait=0.01, timeout=1.0).fetch(rows(item))
    assert row["uri"] == item.uri
    assert error.status == "unreadable"
    assert "hunter2" not in str(error)
    assert {path for path, _ in Web.seen} == {"/status/500?size=2&X-Amz-Signature=hunter2"}


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
