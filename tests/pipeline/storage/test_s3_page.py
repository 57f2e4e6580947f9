"""One page of S3's listing, and keys to divide it at."""

import datetime as dt

import fsspec.asyn
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.s3_page import _parse, _parse_timestamp, letters_of, list_objects, middle, same_start


@pytest.mark.parametrize("text", ["2026-11-29T01:02:03.000Z", "Sun, 29 Nov 2026 01:02:03 GMT"])
def test_dates_of_bodies_and_of_headers_are_read(text):
    assert _parse_timestamp(text).replace(tzinfo=dt.UTC) == dt.datetime(2026, 11, 29, 1, 2, 3, tzinfo=dt.UTC)


def test_a_page_is_what_botocore_reads_of_it_and_other_requests_are_left_to_it(s3):
    for key in ("page/a b&c.jpg", "page/é.jpg", "page/sub/x.jpg", "page/+%20.jpg"):
        s3.put(key, b"123")
    request = {"Bucket": s3.bucket, "Prefix": "page/", "Delimiter": "/", "MaxKeys": 2}
    found, token, pages = [], {}, 0
    while token is not None:
        page = fsspec.asyn.sync(s3.fs.loop, list_objects, s3.fs, request | token)
        wanted = s3.fs.call_s3("list_objects_v2", **request, **token)
        assert page["IsTruncated"] == wanted["IsTruncated"]
        assert page["CommonPrefixes"] == wanted.get("CommonPrefixes", [])
        assert page["Contents"] == [{name: each[name] for name in ("Key", "Size", "ETag")} for each in wanted.get("Contents", [])]
        assert not wanted.get("Contents") or "StorageClass" in wanted["Contents"][0]
        found += [each["Key"] for each in page["Contents"]]
        token, pages = ({"ContinuationToken": page["NextContinuationToken"]} if page["IsTruncated"] else None), pages + 1
    assert pages > 1
    assert sorted(found) == sorted(f"page/{name}" for name in ("a b&c.jpg", "é.jpg", "+%20.jpg"))


@pytest.mark.parametrize("body", [b"<half", b"<Error><Code>SlowDown</Code></Error>"])
def test_what_is_no_page_is_left_to_botocore(monkeypatch, body):
    monkeypatch.setattr("pipeline.storage.s3_page._ours", type("Ours", (), {"get": lambda self: True})())
    response, found = {"status_code": 200, "body": body}, {}
    _parse(response, found)
    assert (response["body"], found) == (body, {})


TEXT = st.text("/ab~é.-09", max_size=6)


@given(TEXT, TEXT, st.lists(TEXT))
def test_the_middle_is_never_before_the_first_and_has_nothing_that_sorts_before_a_slash_of_its_own(one, other, names):
    low, high = sorted((one, other))
    if low == high:
        return
    found = middle(low, high, letters_of(names))
    same = same_start(low, high)
    assert low[:same] == high[:same] == found[:same]
    assert found[same : same + 1] <= high[same] or found[same] == "~"
    assert letters_of(names) == "".join(sorted(set(letters_of(names))))


def test_the_middle_is_among_the_letters_that_are_used():
    assert middle("0001", "~", "0123456789") == "5~"
    assert middle("0001", "5~", "0123456789") == "2~"
    assert middle("0001", "0~", "0123456789") == "05~"
    assert middle("IMG-17", "IMG-2", "0123456789") == "IMG-1~"
    assert letters_of(["IMG-17.jpg", "a é.b.png", "x"]) == "17GIMabx"
