"""Where the images of a committed run are, once its manifest is gone; with it, see test_thumbnails.py."""

import pytest

from pipeline.errors import ImageError
from pipeline.report.highlights import Pick
from pipeline.report.locate import places
from pipeline.table.output_folder import OutputFolder


def place(uri, source, folder):
    (found,) = places(OutputFolder(str(folder), {}), "r", source, [Pick(0.0, "", uri, "", 0, 0)])
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
    found = place(uri, "s3://bucket/photos/", tmp_path)
    assert isinstance(found, ImageError)
    assert found.status == status


def test_a_row_of_a_table_is_a_place_in_it(tmp_path):
    row = place("s3://bucket/photos/a.parquet!/17", "s3://bucket/photos/", tmp_path)
    assert (row["container"], row["position"]) == ("bucket/photos/a.parquet", 17)
    assert place("s3://bucket/a.jpg", "s3://bucket/", tmp_path)["container"] is None
