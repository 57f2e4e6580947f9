"""Fetching from .tar shards and Parquet tables in an object store: few requests, and an outcome for each row."""

import os
import re
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.servers.proxy import READING
from pipeline.errors import StorageError
from pipeline.images import coalesce, parquet_reader, prefetch
from pipeline.images.fetch import Fetcher
from pipeline.images.parquet_reader import LastReader
from pipeline.sources.source import list_items
from tests.plugins.corpus import write_tar
from tests.plugins.fetching import fetched, fetcher, rows, through

PLAIN = {"compression": "none", "use_dictionary": False}
CHANGED = ("changed", "not the object that was listed any more; the next listing will have it")


@pytest.fixture(autouse=True)
def _no_last_reader(monkeypatch):
    monkeypatch.setattr(parquet_reader, "last_reader", LastReader())


@pytest.fixture(scope="module")
def contents():
    """Bytes that stand for 200 small images."""
    return [os.urandom(500 + 20 * i) for i in range(200)]


@pytest.fixture(scope="module")
def shard(s3, contents, tmp_path_factory):
    """The URI of a .tar of them in S3, with labels between."""
    path = tmp_path_factory.mktemp("shard") / "x.tar"
    write_tar(path, {f"{i:03}{end}": data for i, image in enumerate(contents) for end, data in ((".jpg", image), (".json", b"{}"))})
    return s3.put("shards/x.tar", path.read_bytes())


@pytest.fixture(scope="module")
def table(s3, contents, tmp_path_factory):
    """The URI of a Parquet table of them in S3, in row groups of 80, laid out like a Hugging Face dataset."""
    path = tmp_path_factory.mktemp("table") / "x.parquet"
    column = pa.array([{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(contents)])
    pq.write_table(pa.table({"label": [b"not asked for" * 100] * 200, "image": column}), path, row_group_size=80)
    return s3.put("tables/x.parquet", path.read_bytes())


def in_blocks(fetch, found, block=64):
    return [outcome for at in range(0, len(found), block) for outcome in fetched(fetch, *found[at : at + block])]


def test_a_block_of_a_tars_small_members_is_one_request(shard, contents, s3, failing):
    found = list(list_items(shard, "uri", s3.options))
    with failing() as (proxy, server):
        assert in_blocks(through(shard, server), found) == contents
    assert (proxy.count("GET"), proxy.requests.total()) == (4, 4)


def test_larger_members_are_as_many_requests_as_spans_and_none_is_read_that_is_too_large(shard, contents, s3, failing, monkeypatch):
    monkeypatch.setattr(coalesce, "MAX_REQUEST_BYTES", 40_000)
    found = list(list_items(shard, "uri", s3.options))
    length = found[-1].position + found[-1].size
    with failing() as (proxy, server):
        assert fetched(through(shard, server), *found) == contents
        assert length / 40_000 <= proxy.count("GET") <= 1.3 * length / 40_000
        proxy.requests.clear()
        outcomes = fetched(through(shard, server, max_bytes=4000), *found)
    assert outcomes[:176] == contents[:176]
    assert {status for status, _ in outcomes[176:]} == {"too_large"}
    assert proxy.count("GET") <= 1.3 * found[176].position / 40_000 + 1


def test_the_spans_ahead_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(coalesce, "MAX_REQUEST_BYTES", 10_000)
    monkeypatch.setattr("pipeline.images.fetch.PREFETCH_BYTES", 30_000)
    write_tar(tmp_path / "x.tar", {f"{i}.jpg": b"%d" % (i % 10) * 900 for i in range(200)})
    begun = []

    class Watched(Fetcher):
        def _read(self, batch):
            begun.append(batch)
            return super()._read(batch)

    stream = Watched(**vars(fetcher(tmp_path / "x.tar", concurrency=16))).fetch(rows(*list_items(str(tmp_path / "x.tar"), "uri", {})))
    next(stream)
    assert len(begun) <= 5
    assert len(list(stream)) == 199
    assert len(begun) == 34  # of six members each


@pytest.mark.parametrize("kind", ["slow_down", "body_cut", "short_length", "reset"])
def test_a_span_that_fails_once_is_asked_for_again(shard, contents, s3, failing, kind):
    found = list(list_items(shard, "uri", s3.options))
    with failing(fraction=1, kinds=(kind,), most=1) as (proxy, server):
        assert in_blocks(through(shard, server), found) == contents
    assert proxy.count("GET") == 8


def test_all_members_and_rows_come_through_faults(shard, table, contents, s3, failing, monkeypatch):
    monkeypatch.setattr(coalesce, "MAX_REQUEST_BYTES", 10_000)
    monkeypatch.setattr(parquet_reader, "MAX_REQUEST_BYTES", 10_000)
    monkeypatch.setattr(prefetch, "MAX_REQUEST_BYTES", 10_000)
    for where, column in ((shard, "uri"), (table, "image")):
        found = list(list_items(where, column, s3.options))
        with failing(fraction=0.2, most=2, kinds=READING) as (proxy, server):
            assert in_blocks(through(where, server, column=column), found) == contents
        assert proxy.failed.total() >= 8


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        ("slow_down", "unreadable", r"reduce your request rate"),
        ("short_length", "truncated", r"250 bytes came of 500, asked 4 times"),
        ("denied", "forbidden", r"access denied: Access Denied."),
        ("stall", "timeout", r"not read within 3 s, asked \d+ times"),
    ],
)
def test_what_keeps_failing_is_what_it_is_of_a_member_alone(shard, s3, failing, kind, status, message):
    found = list(list_items(shard, "uri", s3.options))[:6]
    with failing(always={"x.tar": kind}) as (_, server):
        clock = time.monotonic()
        together = fetched(through(shard, server, timeout=3.0), *found)
        seconds = time.monotonic() - clock
        alone = fetched(through(shard, server, timeout=3.0), found[0])
    assert [outcome[0] for outcome in together] == [status] * 6
    assert re.search(message, together[0][1])
    assert alone[0][0] == status
    assert seconds < 4


def test_a_member_beyond_the_end_of_the_shard_hurts_no_neighbour(s3, failing, tmp_path):
    write_tar(tmp_path / "x.tar", {f"{name}.jpg": name.encode() * 600 for name in "abcd"})
    uri = s3.put("shards/cut.tar", (tmp_path / "x.tar").read_bytes())
    found = [item._replace(version="") for item in list_items(uri, "uri", s3.options)]
    s3.put("shards/cut.tar", (tmp_path / "x.tar").read_bytes()[: found[2].position + 200])
    a, b, c, d = fetched(through(uri, s3), *found)
    assert (a, b) == (b"a" * 600, b"b" * 600)
    assert c == ("truncated", "200 bytes came of 600, asked 4 times")
    assert d == CHANGED


def test_shards_and_tables_that_were_written_anew_fail_their_rows(s3, tmp_path, monkeypatch):
    for version, fill in enumerate((b"1", b"2")):
        write_tar(tmp_path / f"{version}.tar", {f"{i}.jpg": fill * 50_000 for i in range(4)})
        pq.write_table(pa.table({"image": [fill * 50_000] * 4}), tmp_path / f"{version}.parquet", row_group_size=2, **PLAIN)
    for kind, column in (("tar", "uri"), ("parquet", "image")):
        uri = s3.put(f"anew/x.{kind}", (tmp_path / f"0.{kind}").read_bytes())
        found = list(list_items(uri, column, s3.options))
        fetch = through(uri, s3, column=column)
        assert fetched(fetch, *found[:2]) == [b"1" * 50_000] * 2
        s3.put(f"anew/x.{kind}", (tmp_path / f"1.{kind}").read_bytes())
        assert fetched(fetch, *found[2:]) == [CHANGED] * 2
        monkeypatch.setattr(parquet_reader, "last_reader", LastReader())
        assert fetched(fetch, *found) == [CHANGED] * 4
        s3.fs.rm(uri)
        assert fetched(fetch, *found) == [("missing", "there is no such object")] * 4


def test_credentials_that_ran_out_end_the_run_and_are_no_rows(shard, table, s3, failing):
    for where, column in ((shard, "uri"), (table, "image")):
        found = list(list_items(where, column, s3.options))
        with failing(always={"/": "expired"}) as (proxy, server), pytest.raises(StorageError, match="renew them"):
            fetched(through(where, server, column=column), *found)
        assert proxy.requests.total() <= 8


def test_a_tables_row_groups_are_a_request_each_and_are_read_once_by_one_process(table, contents, s3, failing):
    found = list(list_items(table, "image", s3.options))
    with failing() as (proxy, server):
        assert in_blocks(through(table, server, column="image"), found) == contents
    assert (proxy.count("GET"), proxy.requests.total()) == (4, 4)  # the end of the file, and the groups


def test_a_tables_rows_are_there_before_all_is_read(s3, failing, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_reader, "MAX_REQUEST_BYTES", 50_000)
    monkeypatch.setattr(prefetch, "MAX_REQUEST_BYTES", 50_000)
    monkeypatch.setattr(prefetch, "PREFETCH_BYTES", 100_000)
    values = [os.urandom(5000) for _ in range(200)]
    pq.write_table(pa.table({"image": values}), tmp_path / "x.parquet", row_group_size=10)
    uri = s3.put("tables/long.parquet", (tmp_path / "x.parquet").read_bytes())
    found = rows(*list_items(uri, "image", s3.options))
    with failing() as (proxy, server):
        stream = through(uri, server, column="image").fetch(found)
        assert next(stream)[1] == values[0]
        assert proxy.count("GET") <= 6
        assert [data for _, data in stream] == values[1:]
        assert 20 <= proxy.count("GET") <= 42
