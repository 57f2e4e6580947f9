"""Locating the images of a committed run by their URIs, after its manifest is deleted; test_thumbnails.py locates by the manifest."""

import pytest

from pipeline.errors import ImageError
from pipeline.report.highlights import Highlight
from pipeline.report.locate import locate
from pipeline.table.output_folder import OutputFolder


def located(uri, source, folder):
    (found,) = locate(OutputFolder(str(folder), {}), "r", source, [Highlight(0.0, "", uri, "", 0, 0)])
    return found


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("file:///etc/photos.parquet!/3", "forbidden"),
        ("s3://bucket/../photos.parquet!/3", "forbidden"),
        ("https://elsewhere.example/photos.parquet!/3", "forbidden"),
        ("s3://bucket/shard.tar!/7", "missing"),
        ("s3://bucket/photos.parquet!/seven", "missing"),
    ],
)
def test_a_file_that_it_lies_in_is_believed_only_where_the_input_lies(uri, status, tmp_path):
    found = located(uri, "s3://bucket/photos/", tmp_path)
    assert isinstance(found, ImageError)
    assert found.status == status


def test_a_row_of_a_table_is_a_place_in_it(tmp_path):
    row = located("s3://bucket/photos/a.parquet!/17", "s3://bucket/photos/", tmp_path)
    assert (row["container"], row["position"]) == ("bucket/photos/a.parquet", 17)
    assert located("s3://bucket/a.jpg", "s3://bucket/", tmp_path)["container"] is None
