"""One URI for one image, however it is spelled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.spelling import canonical


@pytest.mark.parametrize(
    ("spelled", "uri"),
    [
        (" s3://b/a.jpg\n", "s3://b/a.jpg"),
        ("S3A://b/a%20b//c.jpg", "s3://b/a%20b//c.jpg"),
        ("gcs://b/a.jpg", "gs://b/a.jpg"),
        ("HTTPS://Host/a%20b.jpg?x=1 ", "https://Host/a%20b.jpg?x=1"),
        ("file:/t/a.jpg", "file:///t/a.jpg"),
        ("File://LOCALHOST/t/a.jpg", "file:///t/a.jpg"),
        ("local:///t/a.jpg", "file:///t/a.jpg"),
        ("file:////t/./x//../a.jpg", "file:///t/a.jpg"),
        ("file://localhosts/a.jpg", "file://localhosts/a.jpg"),
        ("a:b.jpg", "a:b.jpg"),
        ("photos/ ", "photos/"),
    ],
)
def test_a_uri_has_the_spelling_of_a_listing(spelled, uri):
    assert canonical(spelled) == uri


def test_a_percent_in_a_file_uri_is_the_one_that_a_file_has(tmp_path):
    for name in ("a b.jpg", "c%20d.jpg", "é.jpg"):
        (tmp_path / name).write_bytes(b"1")
    for name in ("a b.jpg", "é.jpg"):
        assert canonical((tmp_path / name).as_uri()) == f"file://{tmp_path}/{name}"
    assert canonical((tmp_path / "c%20d.jpg").as_uri()) == f"file://{tmp_path}/c%20d.jpg"
    for name in ("c%20d.jpg", "no%20file.jpg", "no%ff.jpg"):
        assert canonical(f"file://{tmp_path}/{name}") == f"file://{tmp_path}/{name}"


def test_two_dots_after_a_link_lead_where_they_did(tmp_path):
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/sub")
    assert canonical(f"file://{tmp_path}/link/../a.jpg") == f"file://{tmp_path}/link/../a.jpg"
    assert canonical(f"file://{tmp_path}/real/sub/../a.jpg") == f"file://{tmp_path}/real/a.jpg"


@given(st.text("afile:/. %20s3\0", max_size=30))
def test_a_canonical_uri_stays_as_it_is(text):
    assert canonical(canonical(text)) == canonical(text)
