"""Fetching from a storage that fails, and of files that change during a run."""

import os
import re

import pytest

from benchmarks.servers.proxy import BODIES, READING
from pipeline.errors import StorageError
from pipeline.inputs.item import Item
from pipeline.sources.source import list_items
from tests.plugins.fetching import fetched, fetcher, through


@pytest.fixture(scope="module")
def many(s3, images):
    """60 images in S3, and their bytes."""
    contents = [images.jpeg(i, 64, 48) for i in range(60)]
    s3.fs.pipe({f"{s3.bucket}/many/{i:02}.jpg": data for i, data in enumerate(contents)})
    return f"s3://{s3.bucket}/many", contents


@pytest.mark.parametrize("kinds", [READING, ("stall",), BODIES], ids=["all", "stalls", "bodies"])
def test_every_image_comes_through_faults_of_a_fifth_of_the_requests(many, s3, failing, kinds):
    where, contents = many
    found = list(list_items(where, "uri", s3.options))
    with failing(fraction=0.2, kinds=kinds, most=2) as (proxy, server):
        assert fetched(through(where, server), *found) == contents
    assert proxy.failed.total() >= 8
    assert proxy.count("GET") >= 60 + proxy.failed.total()


def test_an_image_is_one_request_and_nothing_else(many, s3, failing):
    where, contents = many
    with failing() as (proxy, server):
        assert fetched(through(where, server), *list_items(where, "uri", s3.options)) == contents
        assert set(proxy.requests.values()) == {1}
        assert (proxy.count("GET", "/many/"), proxy.count("HEAD"), proxy.requests.total()) == (60, 0, 60)


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
    found = list(list_items(where, "uri", s3.options))
    with failing(always=always) as (_, server):
        outcomes = fetched(through(where, server, timeout=8.0), *found)
    assert outcomes[9:] == contents[9:]
    assert [status for status, _ in outcomes[:9]] == [
        *("unreadable", "timeout", "truncated", "truncated", "forbidden", "unreadable", "timeout", "unreadable", "forbidden")
    ]
    assert "reduce your request rate" in outcomes[0][1]
    assert outcomes[1][1].startswith("not read within 8 s, asked ")
    assert outcomes[2][1].endswith(f"bytes came of {len(contents[2])}, asked 4 times")
    assert outcomes[4][1] == "access denied: Access Denied."


def test_one_object_that_is_denied_is_a_row_and_is_asked_for_once(many, s3, failing):
    where, _ = many
    with failing(always={"/00.jpg": "denied"}) as (proxy, server):
        (outcome,) = fetched(through(where, server), *list(list_items(where, "uri", s3.options))[:1])
    assert outcome == ("forbidden", "access denied: Access Denied.")
    assert proxy.requests.total() == 1


def test_credentials_that_ran_out_end_the_run_and_are_no_rows(many, s3, failing):
    where, _ = many
    found = list(list_items(where, "uri", s3.options))
    with failing(always={"/": "expired"}) as (proxy, server), pytest.raises(StorageError) as stopped:
        fetched(through(where, server), *found)
    message = r"the credentials for s3://images/many/\d\d.jpg are expired or wrong \(ExpiredToken\): renew them; .* resumes the run"
    assert re.fullmatch(message, str(stopped.value))
    assert len([path for _, path in proxy.requests if "/many/" in path]) <= 40  # those in flight; the rest are not requested
    assert max(count for (_, path), count in proxy.requests.items() if "/many/" in path) == 4


def test_an_object_that_is_not_the_one_that_was_listed_says_so(s3, images):
    where = f"s3://{s3.bucket}/altered"
    for name in ("equal", "grown", "shrunk", "emptied", "gone", "same"):
        s3.put(f"altered/{name}.jpg", b"1" * 500)
    found = list(list_items(where, "uri", s3.options))
    for name, data in {"equal": b"2" * 500, "grown": b"1" * 600, "shrunk": b"1" * 400, "emptied": b"", "same": b"1" * 500}.items():
        s3.put(f"altered/{name}.jpg", data)
    s3.fs.rm(f"{s3.bucket}/altered/gone.jpg")
    outcomes = dict(zip((item.uri.rpartition("/")[2] for item in found), fetched(through(where, s3), *found), strict=True))
    assert outcomes.pop("same.jpg") == b"1" * 500
    assert outcomes.pop("gone.jpg") == ("missing", "there is no such object")
    assert {status for status, _ in outcomes.values()} == {"changed"}
    assert {message for _, message in outcomes.values()} == {"not the object that was listed any more; the next listing will have it"}


def test_a_local_file_that_was_written_anew_says_so(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1" * 500)
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    found = [item for name in ("a.jpg", "link.jpg") for item in list_items(str(tmp_path / name), "uri", {})]
    assert fetched(fetcher(tmp_path), *found) == [b"1" * 500] * 2
    for data in (b"2" * 500, b"1" * 600, b"1" * 400):
        (tmp_path / "a.jpg").write_bytes(data)
        os.utime(tmp_path / "a.jpg", (len(data), 7))
        assert [outcome[0] for outcome in fetched(fetcher(tmp_path), *found)] == ["changed"] * 2


def test_a_pipe_in_the_place_of_a_file_holds_nobody_up(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    assert fetched(fetcher(tmp_path), Item(f"file://{tmp_path}/pipe.jpg")) == [("not_an_image", "a device or a pipe, no file")]
