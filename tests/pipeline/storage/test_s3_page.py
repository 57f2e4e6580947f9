"""One page of S3's listing."""

import datetime as dt

import pytest

from pipeline.storage.s3_page import _parse_timestamp


@pytest.mark.parametrize("text", ["2026-11-29T01:02:03.000Z", "Sun, 29 Nov 2026 01:02:03 GMT"])
def test_dates_of_bodies_and_of_headers_are_read(text):
    assert _parse_timestamp(text).replace(tzinfo=dt.UTC) == dt.datetime(2026, 11, 29, 1, 2, 3, tzinfo=dt.UTC)
