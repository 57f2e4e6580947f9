"""Reading of image bytes in a Parquet column: any rows, each byte requested once, errors confined to their row group."""

import random
import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StorageError
from pipeline.images import parquet_reader, prefetch
from pipeline.images.parquet_reader import ColumnReader, LastReader
from pipeline.images.prefetch import PrefetchingFile
from pipeline.storage.retry import ShortError

RANDOM = random.Random(5)


class File:
    """A Parquet file in memory that records the ranges requested."""

    def __init__(self, values, struct=False, **settings):
        column = pa.array(values, pa.binary())
        if struct:
            column = pa.StructArray.from_arrays([pa.array(["x"] * len(values)), column], ["path", "bytes"])
        buffer = BytesIO()
        pq.write_table(pa.table({"other": ["o" * 50] * len(values), "image": column}), buffer, **settings)
        self.data = bytearray(buffer.getvalue())
        self.asked = []

    def get(self, start, end):
        self.asked.append((start, end))
        assert 0 <= start < end <= len(self.data)
        return bytes(self.data[start:end])

    def open(self):
        tail = bytes(self.data[-parquet_reader.TAIL :])
        return ColumnReader(PrefetchingFile(len(self.data), tail, self.get), "image")

    def chunk(self, group):
        """Return where the image column's bytes in a row group start and end."""
        metadata = pq.ParquetFile(BytesIO(self.data)).metadata.row_group(group)
        (column,) = (
            metadata.column(i) for i in range(metadata.num_columns) if metadata.column(i).path_in_schema in ("image", "image.bytes")
        )
        start = column.dictionary_page_offset or column.data_page_offset
        return start, start + column.total_compressed_size


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.fixture(autouse=True)
def _small_spans(monkeypatch):
    for module in (parquet_reader, prefetch):
        monkeypatch.setattr(module, "MAX_REQUEST_BYTES", 1000)
    monkeypatch.setattr(prefetch, "PREFETCH_BYTES", 3000)
    monkeypatch.setattr(parquet_reader, "TAIL", 3000)


def read(column, rows, pool, file):
    return [value if value is None or isinstance(value, Exception) else value.to_pybytes() for value in column.values(rows, pool, file.get)]


VALUES = st.lists(st.one_of(st.none(), st.integers(0, 3000)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(
    lengths=VALUES,
    struct=st.booleans(),
    group=st.integers(1, 70),
    page=st.integers(100, 20_000),
    batch=st.integers(1, 8),
    compression=st.sampled_from(["none", "zstd"]),
    dictionary=st.booleans(),
    block=st.integers(1, 40),
    data=st.data(),
)
def test_any_ascending_rows_in_blocks_of_any_size_are_read_once(
    pool, lengths, struct, group, page, batch, compression, dictionary, block, data
):
    values = [None if length is None else RANDOM.randbytes(length) for length in lengths]
    layout = {"row_group_size": group, "data_page_size": page, "write_batch_size": batch, "use_dictionary": dictionary}
    file = File(values, struct, compression=compression, **layout)
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), unique=True, min_size=1).map(sorted))
    column = file.open()
    file.asked.clear()
    found = [each for at in range(0, len(rows), block) for each in read(column, rows[at : at + block], pool, file)]
    assert found == [values[row] for row in rows]
    asked = sorted(file.asked)
    assert all(first[1] <= second[0] for first, second in pairwise(asked))
    chunks = [file.chunk(i) for i in range(pq.ParquetFile(BytesIO(file.data)).num_row_groups)]
    assert all(any(start <= a and b <= end for start, end in chunks) for a, b in asked)  # nothing but the column


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, 29), min_size=1, max_size=20))
def test_rows_in_any_order_come_in_that_order(pool, rows):
    values = [RANDOM.randbytes(RANDOM.randrange(3000)) for _ in range(30)]
    file = File(values, row_group_size=8, data_page_size=500, write_batch_size=1)
    assert read(file.open(), rows, pool, file) == [values[row] for row in rows]


def test_as_much_is_read_ahead_as_the_rows_are_likely_to_need(pool):
    values = [RANDOM.randbytes(500) for _ in range(200)]
    file = File(values, data_page_size=500, write_batch_size=1, compression="none", use_dictionary=False)
    column = file.open()
    file.asked.clear()
    assert read(column, list(range(50)), pool, file) == values[:50]
    start, end = file.chunk(0)
    read_bytes = sum(b - a for a, b in file.asked)
    assert (end - start) / 4 <= read_bytes <= (end - start) / 4 + parquet_reader.BUFFER + 2 * prefetch.MAX_REQUEST_BYTES
    assert max(b - a for a, b in file.asked) == prefetch.MAX_REQUEST_BYTES


def test_no_more_is_held_ahead_than_there_may_be(pool):
    values = [RANDOM.randbytes(500) for _ in range(200)]
    file = File(values, data_page_size=500, write_batch_size=1, compression="none", use_dictionary=False)
    column = file.open()
    file.asked.clear()
    stream = column.values(list(range(200)), pool, file.get)
    next(stream)
    begun = sum(b - a for a, b in file.asked)
    assert begun <= parquet_reader.BUFFER + prefetch.PREFETCH_BYTES + 2 * prefetch.MAX_REQUEST_BYTES
    assert len(list(stream)) == 199


def test_what_is_broken_fails_its_row_group_from_there_on(pool):
    values = [RANDOM.randbytes(400) for _ in range(40)]
    file = File(values, row_group_size=10, compression="zstd", use_dictionary=False, data_page_size=400, write_batch_size=1)
    start, end = file.chunk(1)
    file.data[start + (end - start) // 2 : end] = bytes(end - start - (end - start) // 2)
    found = read(file.open(), list(range(40)), pool, file)
    assert found[:10] + found[20:] == values[:10] + values[20:]
    broken = [value for value in found[10:20] if isinstance(value, Exception)]
    assert found[10] == values[10]
    assert found[20 - len(broken) : 20] == broken
    assert len(broken) >= 4


def test_a_part_that_is_not_to_be_had_fails_its_row_group(pool):
    values = [RANDOM.randbytes(400) for _ in range(40)]
    file = File(values, row_group_size=10)
    start, end = file.chunk(2)

    def get(first, last):
        if first < end and last > start:
            raise OSError("gone")
        return file.get(first, last)

    found = list(file.open().values(list(range(40)), pool, get))
    assert [str(value) for value in found if isinstance(value, Exception)] == ["gone"] * 10
    assert [value.to_pybytes() for value in found if isinstance(value, pa.Buffer)] == values[:20] + values[30:]


def test_a_storage_that_refuses_everybody_is_no_rows_failure(pool):
    file = File([RANDOM.randbytes(4000) for _ in range(4)])
    column = file.open()

    def get(first, last):
        raise StorageError("expired")

    with pytest.raises(StorageError, match="expired"):
        list(column.values([0], pool, get))


def test_a_row_that_there_is_not_says_so(pool):
    file = File([b"first"])
    first, second = read(file.open(), [0, 7], pool, file)
    assert first == b"first"
    assert str(second) == "it has 1 rows"


def test_requests_that_a_block_left_undone_are_made_by_the_next(pool):
    values = [RANDOM.randbytes(500) for _ in range(100)]
    file = File(values, data_page_size=500, write_batch_size=1, compression="none", use_dictionary=False)
    column = file.open()
    with ThreadPoolExecutor(1) as first:
        stream = column.values(list(range(100)), first, file.get)
        next(stream)
        first.shutdown(cancel_futures=True)
    assert read(column, list(range(1, 100)), pool, file) == values[1:]


def test_the_column_that_was_read_last_is_kept_for_who_asks_for_it():
    one, two = (
        ColumnReader(PrefetchingFile(len(file.data), bytes(file.data), file.get), "image", ("key", i))
        for i, file in enumerate([File([b"1"]), File([b"2"])])
    )
    last = LastReader()
    last.keep(one)
    last.keep(two)
    assert last.take(("key", 0)) is None
    assert last.take(("key", 1)) is two
    assert last.take(("key", 1)) is None


def test_an_empty_response_is_a_short_read_and_no_endless_loop(pool):
    file = File([RANDOM.randbytes(4000) for _ in range(4)], compression="none", use_dictionary=False)
    column = file.open()
    errors = list(column.values([0, 1, 2, 3], pool, lambda start, end: b""))
    assert {type(error) for error in errors} == {ShortError}
    assert re.match(r"0 bytes came of \d+", str(errors[0]))


def test_no_more_rows_than_batch_are_decoded_at_once(pool, monkeypatch):
    file = File([bytes([i]) for i in range(40)])
    for batch in (7, 1):  # the process that fetches for a block that has killed its worker decodes one at a time
        monkeypatch.setattr(parquet_reader, "BATCH", batch)
        column = file.open()
        assert read(column, [0, 1, 2], pool, file) == [b"\0", b"\1", b"\2"]
        assert len(column._batch) == batch
