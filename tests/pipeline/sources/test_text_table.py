"""Reading of one column of tables of text: as text, quotes respected, streamed, with the line of what is broken."""

import csv
import gzip
import io
import json
import tracemalloc
from itertools import islice

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.sources import text_table
from pipeline.sources.text_table import text_rows, text_values
from pipeline.table.kept_columns import Keep
from tests.plugins.listing import kept, names


def read(data: bytes | str, kind="CSV", column="uri"):
    return list(text_values(io.BytesIO(data if isinstance(data, bytes) else data.encode()), kind, column, f"list.{kind}"))


def test_values_stay_as_they_are_written():
    assert read("uri,x\n0001,1\n2024-01-01,2\nNA,3\ntrue,4\n1e5,5\n") == ["0001", "2024-01-01", "NA", "true", "1e5"]
    assert read('{"uri": 12345678901234567890}\n{"uri": 1.50}\n{"uri": null}\n{}\n', "JSON Lines") == [
        "12345678901234567890",
        "1.50",
        None,
        None,
    ]


@pytest.mark.parametrize("size", [1_000, 40_000])  # rows: 40 kB and 2 MB
def test_line_breaks_delimiters_and_quotes_within_quotes_are_no_rows(size):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["text", "uri"])
    writer.writerows([f'caption {i}\r\nsecond "line",x.jpg\n', f"{i},\n.jpg"] for i in range(size))
    assert read(buffer.getvalue()) == [f"{i},\n.jpg" for i in range(size)]


def test_lines_of_megabytes_are_read():
    long = "x" * 3_000_000
    assert read(f"uri,t\na.jpg,{long}\nb.jpg,y\n") == ["a.jpg", "b.jpg"]
    assert read(f'{{"uri": "a.jpg", "b64": "{long}"}}\n{{"uri": "b.jpg"}}\n', "JSON Lines") == ["a.jpg", "b.jpg"]


def test_other_columns_may_hold_anything():
    assert read(b"uri,text\na.jpg,caf\xe9\nb.jpg,\xff\xfe\n") == ["a.jpg", "b.jpg"]
    rows = [b'{"id": 1, "uri": "a.jpg"}', b'{"id": "x2", "uri": "b.jpg"}', b'{"id": {"deep": [1, null]}, "uri": "c.jpg"}']
    assert read(
        b"\n".join([*rows, b'{"id": "caf\xe9", "uri": "d.jpg"}', b'{"id": ' + b"9" * 5000 + b', "uri": "e.jpg"}']), "JSON Lines"
    ) == [f"{letter}.jpg" for letter in "abcde"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_line_ends_and_empty_lines_are_no_content(end):
    assert read("\ufeff" + end.join(["uri,x", "a.jpg,1", "", "b.jpg,2", "", ""])) == ["a.jpg", "b.jpg"]
    assert read("\ufeff" + end.join(["uri\tx", "a.jpg\t1", "", "b.jpg\t2"]), "TSV") == ["a.jpg", "b.jpg"]
    assert read("\ufeff" + end.join(["a.jpg", " ", " b c.jpg ", ""]), "text") == ["a.jpg", "b c.jpg"]
    if end != "\r":
        assert read("\ufeff" + end.join(['{"uri": "a.jpg"}', " ", '{"uri":\r"b.jpg"}']), "JSON Lines") == ["a.jpg", "b.jpg"]


def test_the_same_name_of_two_other_columns_does_no_harm():
    assert read("x,uri,x\n1,a.jpg,2\n") == ["a.jpg"]
    assert read('{"uri": "a.jpg", "uri": "b.jpg"}\n', "JSON Lines") == ["b.jpg"]  # the last one counts, as in every reader of JSON


def test_rows_of_json_lines_may_lack_the_column_but_not_all_of_them():
    assert read('{"x": 1}\n{"x": 2}\n{"uri": "a.jpg"}\n{"x": 3}\n', "JSON Lines") == [None, None, "a.jpg", None]


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("CSV", b"", "list.CSV is empty"),
        ("CSV", b"\n\r\n", "list.CSV is empty"),
        ("CSV", b"uri,b\na,1\n\nc,2,3\n", r"list.CSV, line 4: 3 fields, but the header has 2: put values that hold a delimiter"),
        ("CSV", b'uri,b\n"a\nb",1\nc\n', r"list.CSV, line 4: 1 fields, but the header has 2"),
        ("CSV", b'uri,b\na,1\n"b,2\nc,3\n', "list.CSV, line 3: a value in quotes never ends"),
        ("CSV", b'uri,b\na,1\n"b" c,2\n', "list.CSV, line 3: text follows a closing quote"),
        ("CSV", b"uri,uri\na,b\n", "list.CSV has more than one column 'uri': rename one"),
        ("CSV", b"url,b\na,1\n", r"list.CSV has no column 'uri' \(did you mean 'url'\?\); it has url, b: name one with --column"),
        ("CSV", b"uri;b\na;1\n", r"list.CSV has no column 'uri'.*; it has uri;b \(its fields are divided by ';', not by ','\)"),
        ("CSV", b"uri\na.jpg\ncaf\xe9.jpg\n", "list.CSV, line 3: column 'uri' is not in UTF-8: save the file as UTF-8"),
        ("CSV", b"\xe9\nx.jpg\n", "list.CSV has no column 'uri'; it has .*: name one with --column"),
        ("JSON Lines", b'{"uri": "a"}\n{"uri": \n', "list.JSON Lines, line 2: Expecting value; one JSON object a line is read"),
        ("JSON Lines", b'{\n  "uri": "a"\n}\n', "list.JSON Lines, line 1: .*; one JSON object a line is read"),
        ("JSON Lines", b'\n[{"uri": "a"}]\n', "list.JSON Lines, line 2: an array; one JSON object a line is read"),
        ("JSON Lines", b"null\n", "list.JSON Lines, line 1: null; one JSON object a line is read"),
        ("JSON Lines", b"[" * 100_000, "list.JSON Lines, line 1: .*; one JSON object a line is read"),
        ("JSON Lines", b'{"uri": ["a"]}\n', "list.JSON Lines, line 1: column 'uri' holds an array, no URI: name another with --column"),
        ("JSON Lines", b'{"uri": true}\n', "list.JSON Lines, line 1: column 'uri' holds true or false, no URI"),
        ("JSON Lines", b'{"uri": "caf\xe9"}\n', "list.JSON Lines, line 1: column 'uri' is not in UTF-8"),
        ("JSON Lines", b'{"uri": "\\ud800"}\n', "list.JSON Lines, line 1: column 'uri' is not in UTF-8"),
        ("JSON Lines", b'{"url": "a"}\n' * 3, r"list.JSON Lines has no column 'uri' \(did you mean 'url'\?\); it has url: name one"),
        ("text", b"a.jpg\ncaf\xe9.jpg\n", "list.text, line 2: it is not in UTF-8: save the file as UTF-8"),
    ],
)
def test_what_is_broken_is_named_with_its_line(kind, data, message):
    with pytest.raises(UserError, match=message) as error:
        read(data, kind)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["CSV", "JSON Lines", "text"])
def test_a_line_too_long_to_hold_is_refused(monkeypatch, kind):
    monkeypatch.setattr(text_table, "MAX_LINE", 2**20)
    with pytest.raises(UserError, match="has more than 1 million characters in line 2"):
        read((b'{"uri":"a"}\n' if kind == "JSON Lines" else b"uri\n") + b"x" * (2**20 + 1), kind)


def test_a_quote_that_never_ends_is_not_held_whole(monkeypatch):
    limit = csv.field_size_limit(1000)
    try:
        with pytest.raises(UserError, match="line 2: a value of more than 64 million characters: does a quote never end"):
            read('uri,x\n"a,1\n' + "b,2\n" * 1000)
    finally:
        csv.field_size_limit(limit)


@pytest.mark.parametrize(("kind", "line"), [("CSV", b"uri\n"), ("JSON Lines", b'{"uri": "a.jpg"}\n'), ("text", b"a.jpg\n")])
def test_a_table_is_streamed(kind, line):
    class Endless(io.RawIOBase):
        position = 0

        def readable(self):
            return True

        def seek(self, offset, whence=0):
            self.position = offset

        def readinto(self, buffer):
            for i in range(len(buffer)):
                buffer[i] = line[(self.position + i) % len(line)]
            self.position += len(buffer)
            return len(buffer)

    assert len(list(islice(text_values(Endless(), kind, "uri", "list"), 100))) == 100


def test_what_is_compressed_is_read_to_its_end_or_refused():
    data = b"uri\n" + b"".join(b"%d.jpg\n" % i for i in range(10_000))
    for packed in (gzip.compress(data), gzip.compress(data[:999]) + gzip.compress(data[999:]), pa.compress(data, "zstd", asbytes=True)):
        assert read(packed) == [f"{i}.jpg" for i in range(10_000)]
        with pytest.raises(OSError, match="Truncated"):
            read(packed[:-9])


@pytest.mark.parametrize("kind", ["CSV", "JSON Lines", "text"])
@pytest.mark.parametrize("pack", [gzip.compress, lambda data: pa.compress(data, "zstd", asbytes=True)], ids=["gzip", "zstd"])
def test_a_line_that_unpacks_to_very_much_is_refused_before_it_is_held(monkeypatch, kind, pack):
    monkeypatch.setattr(text_table, "MAX_LINE", 2**19)
    packed = pack((b'{"uri": "a.jpg"}\n' if kind == "JSON Lines" else b"uri\n") + b"x" * 2**24)
    assert len(packed) < 2**15
    rows = text_values(io.BytesIO(packed), kind, "uri", "list")
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"list has more than 0 million characters in line 2: is it a table\?"):
            list(rows)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "suffix", [".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst", ".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".txt.zst"]
)
def test_tables_of_text_are_read_by_their_names_and_unpacked(tmp_path, suffix):
    row = {"uri": "a.jpg", "id": "007"}
    delimiter = "\t" if ".tsv" in suffix else ","
    text = json.dumps(row) if "json" in suffix else delimiter.join(row) + "\n" + delimiter.join(row.values())
    data = (text if ".txt" not in suffix else "a.jpg").encode()
    codec = {".gz": "gzip", ".zst": "zstd"}.get(suffix[suffix.rindex(".") :])
    with pa.output_stream(tmp_path / f"posts{suffix}", codec) as file:
        file.write(data)
    assert names(tmp_path / f"posts{suffix}") == names(tmp_path) == ["a.jpg"]
    if ".txt" not in suffix:
        assert kept(tmp_path, "id") == [("a.jpg", "007")]


def test_json_and_csv_written_by_others_are_read_alike():
    values = ["a,b.jpg", 'say "hi".jpg', "ü.jpg", "\U0001f600.jpg"]
    lines = "".join(json.dumps({"uri": value}, ensure_ascii=escaped) + "\n" for escaped in (True, False) for value in values)
    assert read(lines, "JSON Lines") == values * 2


def read_rows(text: str, *entries: str, kind="CSV"):
    keep = Keep(entries)
    return [list(row) for row in text_rows(io.BytesIO(text.encode()), kind, "uri", f"list.{kind}", keep)]


def test_columns_to_keep_are_text_as_it_is_written():
    assert read_rows('id,uri,text\n007,a.jpg,"é\n""x"""\n,,\n', "text", "post=id") == [["a.jpg", 'é\n"x"', "007"], ["", "", ""]]


def test_values_of_json_are_kept_as_text_or_as_their_json():
    lines = [
        '{"uri": "a.jpg", "v": "text"}',
        '{"uri": "b.jpg", "v": 12345678901234567890.10}',
        '{"uri": "c.jpg", "v": [1.50, {"k\\n": null, "é": [true, "\\u00e9\\""]}]}',
        '{"uri": "d.jpg", "v": false}',
        '{"uri": "e.jpg", "v": null}',
        '{"uri": "f.jpg"}',
        '{"uri": "g.jpg", "v": "cut \\ud83d"}',
    ]
    assert [value for _, value in read_rows("\n".join(lines), "v", kind="JSON Lines")] == [
        "text",
        "12345678901234567890.10",
        '[1.50, {"k\\n": null, "é": [true, "é\\""]}]',
        "false",
        None,
        None,
        "cut �",
    ]


def test_rows_before_the_first_that_has_the_uris_keep_their_values_and_are_not_too_many(monkeypatch):
    lines = "".join(f'{{"id": {i}}}\n' for i in range(5))
    assert read_rows(lines + '{"id": 5, "uri": "a.jpg"}\n', "id", kind="JSON Lines") == [
        *([None, str(i)] for i in range(5)),
        ["a.jpg", "5"],
    ]
    monkeypatch.setattr(text_table, "MAX_HELD", 3)
    with pytest.raises(UserError, match=r"list.JSON Lines has no column 'uri'"):
        read_rows(lines + '{"id": 5, "uri": "a.jpg"}\n', "id", kind="JSON Lines")


@pytest.mark.parametrize(("kind", "line"), [("CSV", b"a.jpg,\xe9\n"), ("JSON Lines", b'{"uri": "a.jpg", "id": "\xe9"}\n')])
def test_text_to_keep_that_is_not_in_utf8_is_named_with_its_line(kind, line):
    data = {"CSV": b"uri,id\nb.jpg,1\n", "JSON Lines": b'{"uri": "b.jpg"}\n\n'}[kind] + line
    with pytest.raises(UserError, match=f"list.{kind}, line 3: .*is not in UTF-8: save the file as UTF-8"):
        list(text_rows(io.BytesIO(data), kind, "uri", f"list.{kind}", Keep(["id"])))


def test_json_that_is_too_deep_to_keep_is_named_with_its_line():
    deep = "[" * 800 + "]" * 800
    assert read_rows(f'{{"uri": "a.jpg", "v": {deep[750:-750]}}}', "v", kind="JSON Lines")[0][1] == deep[750:-750]
    with pytest.raises(UserError, match=r"list.JSON Lines, line 1: "):
        read_rows(f'{{"uri": "a.jpg", "v": {deep}}}', "v", kind="JSON Lines")
