"""Which names are hidden or markers, and which are images'."""

import pytest

from pipeline.storage.left_out import marker


@pytest.mark.parametrize(
    "path",
    [
        "/_DSC0001.JPG",
        "/_MG_0002.JPG",
        "/_/a.jpg",
        "/__x.jpg",
        "/_SUCCESS.jpg",
        "/_metadata2",
        "/a/../b.jpg",
        "/./a.jpg",
        "/a.b.jpg",
        "/_started_x",
    ],
)
def test_an_underscore_alone_makes_no_marker(path):
    assert marker(path) is None


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("/_SUCCESS", "/_SUCCESS"),
        ("/x/_metadata", "/x/_metadata"),
        ("/_common_metadata", "/_common_metadata"),
        ("/t/_delta_log/0.json", "/t/_delta_log"),
        ("/_started_123", "/_started_123"),
        ("/_committed_123", "/_committed_123"),
        ("/_committed_vacuum123", "/_committed_vacuum123"),
        ("/_temporary/0/a.jpg", "/_temporary"),
        ("/a/.part-0.jpg.crc", "/a/.part-0.jpg.crc"),
        ("/a.jpg.crc", "/a.jpg.crc"),
        ("/a/._b.jpg", "/a/._b.jpg"),
        ("/.DS_Store", "/.DS_Store"),
        ("/...jpg", "/...jpg"),
        ("/x/__MACOSX/x/._a.jpg", "/x/__MACOSX"),
        ("/Thumbs.db", "/Thumbs.db"),
    ],
)
def test_hidden_files_and_known_markers_are_left_out_as_a_whole(path, left_out):
    assert marker(path) == left_out


def test_what_is_above_the_start_does_not_count():
    assert marker("/.cache/_temporary/a.jpg", len("/.cache/_temporary")) is None
