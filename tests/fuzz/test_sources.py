"""Fuzzing of `pipeline.sources.source.list_items`: tables and shards that are broken in many ways, and folders with odd file names."""

import csv
import gzip
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from tests.fuzz.inputs import mutated

URIS = ["s3://bucket/a.jpg", "b/ü.jpg", "/data/c.jpg", "", "file:///d e.jpg"]
COLUMNS = st.sampled_from(["uri", "image", "id", "", "a.b", "uris"])
NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12).map(str.encode) | st.sampled_from(
    [
        b"a::b.jpg",
        b"~",
        b"%41.jpg",
        b"#.jpg",
        b"a?b.jpg",
        b"[x].jpg",
        b"*",
        b"caf\xe9.jpg",
        b"a\nb.jpg",
        b"-x",
        b"s3:",
        b"file:",
        b"..jpg",
        b"{0}",
    ]
)
KEPT = st.sampled_from([(), (), ("id",), ("id", "more")])
ENDINGS = st.sampled_from([b"", b".jpg", b".csv", b".tar", b".jsonl", b".parquet", b".JPG", b".txt", b".tsv.gz", b".md", b".tar.gz"])


def parquet(table, **options):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def tables():
    uris = pa.table({"id": range(5), "uri": URIS, "a.b": URIS})
    image = pa.array([b"1", b"22", None, b"", b"5" * 50], pa.binary())
    nested = pa.array([{"bytes": b"1", "path": "a.jpg"}, None], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    return [
        parquet(uris, compression="none"),
        parquet(uris, compression="snappy", row_group_size=2),
        parquet(uris, compression="zstd", use_dictionary=False, data_page_version="2.0"),
        parquet(pa.table({"uri": pa.array(URIS).dictionary_encode()}), compression="gzip", version="1.0"),
        parquet(
            pa.table({"uri": pa.array(URIS, pa.large_string())}),
            use_byte_stream_split=False,
            column_encoding={"uri": "DELTA_BYTE_ARRAY"},
            use_dictionary=False,
        ),
        parquet(pa.table({"image": image, "id": range(5)})),
        parquet(pa.table({"uri": URIS, "id": [[i] * i for i in range(5)], "more": [{"a": "x" * i, "b": None} for i in range(5)]})),
        parquet(pa.table({"image": nested})),
        parquet(pa.table({"uri": pa.array([], pa.string())})),
    ]


def shards():
    out = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
            for name, size in (
                ("0/a.jpg", 700),
                ("0/a.json", 8),
                ("ü/" + "b" * 90 + ".png", 3),
                *([("c" * 120 + ".webp", 9)] if kind else []),
            ):
                info = tarfile.TarInfo(name)
                info.size = size
                if kind == tarfile.PAX_FORMAT:
                    info.pax_headers = {"comment": "x" * 20, "mtime": "1.5"}
                tar.addfile(info, io.BytesIO(b'{"id":7}' if name.endswith("json") else b"x" * size))
        out.append(buffer.getvalue()[: -8 * 512])  # the end marker is twenty blocks long
    return out


def mended(data):
    """Return the .tar with the checksums of its headers corrected, so that the headers are read."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def lines(values):
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode()


TEXTS = {
    "tsv": [b'id\turi\n1\ta.jpg\n2\t"b\n.jpg"\n'],
    "txt": ["\ufeffa.jpg\r\n\nü.jpg".encode()],
    "csv.gz": [gzip.compress(b"uri\na.jpg\n" * 50)],
    "csv": [
        b"uri,id\na.jpg,1\nb.jpg,2\n",
        b'id;"uri"\n1;"a,""b"".jpg"\n',
        "\ufeffuri\r\nü.jpg\r\n\r\n".encode(),
        b"uri,uri\na,b\n",
        ("uri\n" + "x.jpg\n" * 500).encode(),
    ],
    "jsonl": [
        lines([{"uri": "a.jpg"}, {"uri": None}, {"uri": "ü.jpg", "id": 5}]),
        lines([{"uri": "a.jpg", "more": {"x": [1, {"y": 2.5}]}}]),
        lines([{"image": "x", "uri": 5}, {"uri": "2024-01-01"}]),
    ],
}


def explored(explore, kind, strategy, examples):
    """Fuzz files of a kind together with the names of a column and of those to keep."""

    def trial(given):
        data, column, kept = given
        return (f"x.{kind}", column, kept), {f"x.{kind}": data}

    outcomes = explore("source", st.tuples(strategy, COLUMNS, KEPT), trial, examples)
    assert outcomes.keys() <= {"valid", "UserError"}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_table_of_text_is_read_or_a_user_error(explore, kind):
    explored(explore, kind, mutated(TEXTS[kind]) | st.binary(max_size=100) | st.text(max_size=100).map(str.encode), 80)


PARTS = st.sampled_from(["\n", "\r\n", "\r", ",", "\t", '"', '""', ";", " ", "a", "ü", "\u2028", "\x85", "\U0001f600", "0001", "x" * 9000])
CELLS = st.lists(PARTS, max_size=6).map("".join)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_the_values_of_a_table_are_those_that_were_written(explore, kind):
    def trial(given):
        rows, end, quoting, mark = given
        if kind == "jsonl":
            data = lines([{"id": text, "uri": uri} for text, uri in rows])
        else:
            buffer = io.StringIO(newline="")
            quoting = quoting if end == "\r\n" else csv.QUOTE_ALL  # csv writes a lone \r without quotes where lines end with \n
            writer = csv.writer(buffer, delimiter="," if kind == "csv" else "\t", lineterminator=end, quoting=quoting)
            writer.writerows([("id", "uri"), *rows])
            data = buffer.getvalue().encode()
        return (f"x.{kind}", [uri for _, uri in rows]), {f"x.{kind}": mark + data}

    quoting = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    tables = st.tuples(
        st.lists(st.tuples(CELLS, CELLS), max_size=8), st.sampled_from(["\n", "\r\n"]), quoting, st.sampled_from([b"", b"\xef\xbb\xbf"])
    )
    outcomes = explore("written", tables.filter(lambda given: given[0]), trial, 60)
    assert outcomes.keys() == {"valid"}


def test_a_parquet_is_read_or_a_user_error(explore):
    explored(explore, "parquet", mutated(tables()), 100)


def test_a_tar_is_read_or_a_user_error(explore):
    explored(explore, "tar", mutated(shards(), mended), 100)


def test_a_folder_of_odd_names_is_read_or_a_user_error(explore):
    files = st.dictionaries(st.tuples(NAMES, ENDINGS).map(b"".join), st.binary(max_size=5), max_size=5)
    inputs = st.sampled_from(["", ".", "*", "**", "?[", "[a-", "*.jpg", "gone"]) | st.text(max_size=10)
    inputs = inputs.filter(lambda name: not name.startswith("/") and ".." not in name)  # outside the folder is the whole machine

    def trial(given):
        content, name, inside = given
        content = {path: data for path, data in content.items() if path not in (b".", b"..") and len(path) < 200}
        own = sorted(content)[0].decode(errors="surrogateescape") if content and inside else name
        return (own, "uri", ()), content

    outcomes = explore("source", st.tuples(files, inputs, st.booleans()), trial, 60)
    assert outcomes.keys() <= {"valid", "UserError"}
