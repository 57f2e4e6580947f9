"""Recognise by its first bytes a file that is not what its name says, so that a message can name what it is."""

HEAD = 1024  # bytes to look at

_MAGIC = (
    (b"\xff\xfe\0\0", "UTF-32 text: save it as UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32 text: save it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text: save it as UTF-8"),
    (b"PAR1\x15", "a Parquet file: name it .parquet"),
    (b"\x1f\x8b", "a gzip file: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file: unpack it"),
    (b"\xfd7zXZ\0", "an xz file: unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls): save it as CSV in UTF-8"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer without its content: run git lfs pull"),
    (b"ARROW1\0", "an Arrow file: save it as Parquet"),
    (b"Obj\x01", "an Avro file: save it as Parquet"),
    (b"SQLite format 3\0", "an SQLite database: export the table as CSV"),
    (b"%PDF-", "a PDF document"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG\r\n", "a PNG image"),
)


def what_it_is(head: bytes) -> str | None:
    """Return what the first bytes of a table show that it is, or None for text in UTF-8, as it should be."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head.startswith(b"PK\3\4"):
        workbook = b"xl/" in head or b"[Content_Types].xml" in head
        return "an Excel workbook (.xlsx): save it as CSV in UTF-8" if workbook else "a .zip archive: unpack it"
    if head.startswith(b"BZh") and head[4:10] == b"1AY&SY":
        return "a bzip2 file: unpack it"
    if head[257:262] == b"ustar":
        return "a .tar archive: name it .tar"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower()
    if start.startswith((b"<!doctype", b"<html", b"<head")):
        return "an HTML page, such as a page that asks to log in"
    if start.startswith(b"<?xml"):
        return "an XML file"
    if b"\0" in head:
        is_wide = head.count(b"\0") * 3 >= len(head)
        return (
            "UTF-16 or UTF-32 text without a byte order mark: save it as UTF-8"
            if is_wide
            else "binary: it holds null bytes, which no text has"
        )
    return None
