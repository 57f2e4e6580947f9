"""Files that are not what their names say, named by what they are."""

import gzip
import io
import zipfile

import pytest

from pipeline.errors import UserError
from pipeline.inputs.sniff import what_it_is
from tests.plugins.listing import items, names


def workbook() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("xl/workbook.xml", "<workbook/>")
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "list.txt"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("uri\na.jpg\n".encode("utf-16"), "UTF-16 text: save it as UTF-8"),
        ("uri\na.jpg\n".encode("utf-16-be"), "UTF-16 or UTF-32 text without a byte order mark: save it as UTF-8"),
        ("uri\na.jpg\n".encode("utf-32"), "UTF-32 text: save it as UTF-8"),
        (b"PAR1\x15\x00\x15", "a Parquet file: name it .parquet"),
        (workbook(), r"an Excel workbook \(.xlsx\): save it as CSV in UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", r"an Excel workbook \(.xls\): save it as CSV"),
        (b"\n<!DOCTYPE html><html>", "an HTML page"),
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer without its content: run git lfs pull"),
        (b"uri\nabcdefghi\0jkl", "binary: it holds null bytes"),
    ],
)
def test_a_table_of_text_that_is_something_else_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} is {message}"):
        items(tmp_path / name)


def test_a_git_lfs_pointer_or_a_page_named_parquet_is_named(tmp_path):
    (tmp_path / "list.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n")
    with pytest.raises(UserError, match=r"list.parquet is a Git LFS pointer"):
        items(tmp_path / "list.parquet")


def test_compression_is_recognised_by_content(tmp_path):
    (tmp_path / "list.csv").write_bytes(gzip.compress(b"uri\na.jpg\n"))
    (tmp_path / "plain.csv.gz").write_bytes(b"uri\nb.jpg\n")  # some storages unpack on the way
    assert names(tmp_path / "list.csv") == ["a.jpg"]
    assert names(tmp_path / "plain.csv.gz") == ["b.jpg"]


@pytest.mark.parametrize(
    "head", [b"", b"uri\n", b"\xef\xbb\xbfuri\n", b"ORCID,uri\n", b"BZh,uri\n", b"PAR1,uri\n", b"%a,uri\n", b"\xe9,uri\n"]
)
def test_text_is_text(head):
    assert what_it_is(head) is None
