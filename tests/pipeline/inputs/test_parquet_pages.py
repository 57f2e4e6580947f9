"""Limits of what a Parquet column may take in memory, applied before its pages are unpacked."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.inputs.parquet_pages import CheckedColumns, CheckedPages, PageTooLargeError, column_batches

MEGABYTE = 2**20
DELTA = {"column_encoding": {"uri": "DELTA_BYTE_ARRAY"}}


def written(values, kind=None, **settings):
    buffer = io.BytesIO()
    layout = {"use_dictionary": False, "compression": "zstd", "write_batch_size": 1, "data_page_size": 1}
    pq.write_table(pa.table({"uri": pa.array(values, kind or pa.string())}), buffer, **layout | settings)
    return buffer


def read(buffer, rows=100, most=MEGABYTE):
    for (value,) in read_rows(buffer, ["uri"], rows, most):
        yield value


def read_rows(buffer, names, rows=100, most=MEGABYTE):
    pages = CheckedColumns(buffer, most)
    parquet = pq.ParquetFile(pages, pre_buffer=False, buffer_size=2**16)
    for group in range(parquet.metadata.num_row_groups):
        for batch in column_batches(parquet, pages, group, names, rows):
            yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)


def until_error(values):
    """Return the values before an error, the error, and the most memory that Arrow held meanwhile, in bytes."""
    before, most, found = pa.total_allocated_bytes(), 0, []
    try:
        for value in values:
            found.append(value)
            most = max(most, pa.total_allocated_bytes() - before)
    except (PageTooLargeError, pa.ArrowException, OSError) as error:
        return found, error, most
    return found, None, most


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize(
    "encoding", [{}, {"use_dictionary": True}, {"column_encoding": {"uri": "DELTA_BYTE_ARRAY"}}, {"compression": "none"}]
)
@pytest.mark.parametrize("page", [1, 2**20])
def test_what_takes_little_is_read_whatever_its_pages_are(version, encoding, page):
    values = [None if i % 7 == 0 else f"s3://bucket/{i % 50}.jpg" * (i % 9) for i in range(500)]
    assert list(read(written(values, data_page_version=version, data_page_size=page, row_group_size=200, **encoding))) == values


@pytest.mark.slow
def test_a_few_bytes_that_unpack_to_many_are_refused_before_they_do():
    values = ["a.jpg", "b.jpg", "x" * 100 * MEGABYTE, "c.jpg"]
    buffer = written(values)
    assert len(buffer.getvalue()) < 100_000
    values.clear()
    pool = pa.system_memory_pool()
    pa.set_memory_pool(pool)
    before, begin = pool.max_memory(), pool.bytes_allocated()
    found, error, _ = until_error(read(buffer))
    pa.set_memory_pool(pa.default_memory_pool())
    assert found == ["a.jpg", "b.jpg"]
    assert "unpacks to 104,857,6" in str(error)
    assert pool.max_memory() <= max(before, begin + 4 * MEGABYTE)


@pytest.mark.parametrize(
    "settings", [{"use_dictionary": True, "dictionary_pagesize_limit": 2**30}, {"column_encoding": {"uri": "DELTA_BYTE_ARRAY"}}]
)
def test_values_that_repeat_are_read_fewer_at_once(settings):
    value = "x" * (MEGABYTE // 4)
    buffer = written([value] * 300, data_page_size=2**20, write_batch_size=1000, **settings)
    assert len(buffer.getvalue()) < 100_000
    found, error, most = until_error(read(buffer))
    assert found == [value] * 300
    assert error is None
    assert most < 4 * MEGABYTE


def test_many_pages_that_unpack_to_much_are_not_held_at_once():
    values = ["x" * (MEGABYTE // 2) for _ in range(100)]
    buffer = written(values)
    found, error, most = until_error(read(buffer))
    assert found == values
    assert error is None
    assert most < 8 * MEGABYTE


def test_bytes_that_are_really_there_may_be_many():
    values = [bytes(range(256)) * 8000 for _ in range(4)]  # 2 MB each
    assert list(read(written(values, pa.binary(), compression="none"))) == values


def test_rows_before_a_broken_header_are_read():
    values = [f"{i}.jpg" for i in range(40)]
    buffer = written(values, compression="none")
    data = bytearray(buffer.getvalue())
    column = pq.ParquetFile(buffer).metadata.row_group(0).column(0)
    end = column.data_page_offset + column.total_compressed_size
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle:end] = b"\xff" * (end - middle)
    found, error, _ = until_error(read(io.BytesIO(data), rows=1))
    assert found == values[: len(found)]
    assert 10 < len(found) < 40
    assert error is not None


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(bytes([0x15, 0, 0x15, 20, 0x15, 20, 0x25, 2]), id="a number for the details of the page"),
        pytest.param(bytes([0x18, 0, 0x15, 20, 0x15, 20]), id="text for its kind"),
        pytest.param(bytes([0x15, 0, 0x15, 1, 0x15, 20]), id="a negative size"),
        pytest.param(bytes([0x15, 0, 0x15, 20]), id="no size"),
    ],
)
def test_a_header_whose_fields_are_not_what_they_should_be_is_broken(fields):
    pages = CheckedPages(io.BytesIO(fields + bytes(100)), MEGABYTE)
    pages.begin(0, 50, rows=1)
    pages.seek(0)
    assert pages.read(50) == b""
    with pytest.raises(pa.ArrowInvalid, match="a page's header is broken"):
        pages.next_batch(iter(()))


def nested(count, **settings):
    rows = [
        {"id": i, "name": f"post {i % 40}" * (i % 5), "place": None if i % 3 == 0 else {"at": [i] * (i % 4), "of": f"{i}"}}
        for i in range(count)
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, **settings)
    return buffer, [tuple(row.values()) for row in rows]


@pytest.mark.parametrize(
    "settings", [{}, {"data_page_size": 1, "write_batch_size": 3}, {"row_group_size": 130, "data_page_version": "2.0"}]
)
def test_columns_are_read_together_also_nested_ones(settings):
    buffer, rows = nested(500, **settings)
    assert list(read_rows(buffer, ["id", "name", "place"])) == rows
    assert list(read_rows(buffer, ["place", "id"], rows=7)) == [(place, number) for number, _, place in rows]


@pytest.mark.parametrize("large", ["a", "b"])
def test_a_page_of_any_of_the_columns_is_refused_before_it_is_unpacked(large):
    values = {name: ["x" * 30 * MEGABYTE if name == large and i == 50 else f"{i}" for i in range(100)] for name in "ab"}
    buffer = io.BytesIO()
    pq.write_table(pa.table(values), buffer, use_dictionary=False, compression="zstd", write_batch_size=1, data_page_size=1)
    found, error, most = until_error(read_rows(buffer, ["a", "b"]))
    assert found == [(f"{i}", f"{i}") for i in range(50)]
    assert "unpacks to 31,457,2" in str(error)
    assert most < 4 * MEGABYTE


def test_a_list_of_very_many_values_in_a_few_bytes_is_refused():
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": pa.array([[1], [0] * 10 * MEGABYTE, [2]])}), buffer, compression="zstd")
    assert len(buffer.getvalue()) < 100_000
    found, error, most = until_error(read_rows(buffer, ["a"]))
    assert (found, "values, more than may be held" in str(error)) == ([], True)
    assert most < 8 * MEGABYTE


def test_numbers_that_repeat_are_read_as_many_at_once_as_others(monkeypatch):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": list(range(40_000)) * 2}), buffer, dictionary_pagesize_limit=2**20)
    begun = []
    monkeypatch.setattr(
        CheckedColumns, "begin", lambda *arguments, begin=CheckedColumns.begin: begun.append(arguments[-1]) or begin(*arguments)
    )
    assert [value for (value,) in read_rows(buffer, ["a"], rows=4096)] == list(range(40_000)) * 2
    assert begun == [4096]


def test_of_text_with_a_full_dictionary_not_many_fewer_rows_are_read_at_once(monkeypatch):
    buffer = written([f"s3://bucket/{i:09}.jpg" for i in range(60_000)], use_dictionary=True, data_page_size=2**20, write_batch_size=1000)
    begun = []
    monkeypatch.setattr(
        CheckedColumns, "begin", lambda *arguments, begin=CheckedColumns.begin: begun.append(arguments[-1]) or begin(*arguments)
    )
    assert len(list(read(buffer, rows=4096, most=64 * MEGABYTE))) == 60_000
    assert begun[0] == 4096
    assert 30 < begun[-1] <= 64


def test_a_page_that_ends_after_its_column_is_refused_before_memory_is_reserved_for_it():
    header = bytes([0x15, 0, 0x15, 20, 0x15, 0x80, 0x80, 0x80, 0x80, 0x08, 0])  # 2**30 bytes
    pages = CheckedPages(io.BytesIO(header + bytes(100)), MEGABYTE)
    pages.begin(0, 50, rows=1)
    pages.seek(0)
    assert pages.read(50) == b""
    with pytest.raises(pa.ArrowInvalid, match="a page is larger than its column"):
        pages.next_batch(iter(()))
