"""A table's columns in files that have others, and the rows that a file has left."""

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.sources import parquet_table
from pipeline.sources.data_file import DataFile, TableColumns, field_id_of
from pipeline.sources.parquet_table import parquet_items
from pipeline.storage.listing import File
from pipeline.table.kept_columns import Keep
from tests.plugins.delta_logs import column, inline_vector, write_file, write_log
from tests.plugins.listing import kept


def numbered(name, kind, number):
    return pa.field(name, kind, metadata={"PARQUET:field_id": str(number)})


INNER = pa.struct([numbered("town", pa.large_string(), 11), numbered("new", pa.int32(), 12), numbered("lat", pa.float64(), 13)])
OLD_INNER = pa.struct([numbered("lat", pa.float32(), 13), numbered("gone", pa.int8(), 14), numbered("name", pa.string(), 11)])
ROME, OLD_ROME = {"town": "Rom", "new": None, "lat": 41.5}, {"lat": 41.5, "gone": 1, "name": "Rom"}


@pytest.mark.parametrize(
    ("wanted", "own", "old", "new"),
    [
        (INNER, OLD_INNER, OLD_ROME, ROME),
        (pa.large_list(INNER), pa.list_(OLD_INNER), [OLD_ROME, None], [ROME, None]),
        (pa.list_(INNER), pa.large_list(OLD_INNER), [OLD_ROME, OLD_ROME], [ROME, ROME]),
        (pa.map_(pa.string(), INNER), pa.map_(pa.string(), OLD_INNER), [("a", OLD_ROME), ("b", None)], [("a", ROME), ("b", None)]),
        (pa.list_(pa.list_(INNER)), pa.list_(pa.list_(OLD_INNER)), [[OLD_ROME], None, []], [[ROME], None, []]),
        (pa.list_(pa.int64()), pa.list_(pa.int32()), [1, None], [1, None]),
        (pa.int64(), pa.int32(), 7, 7),
        (pa.timestamp("us", "UTC"), pa.timestamp("ms", "UTC"), 1000, None),
    ],
)
@pytest.mark.parametrize("part", [slice(None), slice(1, None), slice(2, 4)])
def test_values_of_an_older_file_have_the_names_and_types_of_the_table(wanted, own, old, new, part):
    columns = TableColumns(pa.schema([numbered("place", wanted, 1)]), field_id_of)
    file = pa.schema([numbered("x", pa.int8(), 2), numbered("where", own, 1)])
    field = columns.find("place", file)
    assert field.name == "where"
    values = pa.array([None, old, old, None, old], own)[part]
    found = columns.conform(values, field, "place")
    found.validate(full=True)
    assert found.type == wanted
    expected = pa.array([None, new, new, None, new], wanted)[part] if new is not None else values.cast(wanted)
    assert found.equals(expected)


def test_a_column_is_not_found_in_a_file_without_it():
    columns = TableColumns(pa.schema([numbered("place", pa.string(), 1), pa.field("unnumbered", pa.string())]), field_id_of)
    file = pa.schema([numbered("place", pa.string(), 2), pa.field("unnumbered", pa.string())])
    assert columns.find("place", file) is None
    assert columns.find("unnumbered", file) is None


def test_values_that_do_not_fit_the_tables_type_end_the_listing(tmp_path):
    add = write_file(tmp_path, "a.parquet", pa.table({"uri": ["a.jpg"], "n": ["seven"]}))
    write_log(tmp_path, [column("uri", "string"), column("n", "long")], [add])
    with pytest.raises(UserError, match=r"a.parquet can't be read as a table: .*seven"):
        kept(tmp_path, "n")


def test_the_rows_that_are_left_are_those_that_are_not_deleted():
    data = DataFile(File("a", 1, ""), deleted=np.array([0, 5, 6]))
    assert [None if (alive := data.alive(*rows)) is None else alive.tolist() for rows in [(0, 2), (1, 4), (4, 4), (7, 9)]] == [
        [False, True],
        None,
        [True, False, False, True],
        None,
    ]


@pytest.mark.parametrize("held", [1, 2, 3, 100])
def test_rows_and_their_values_stay_together_whatever_the_batches_and_row_groups(tmp_path, monkeypatch, held):
    monkeypatch.setattr(parquet_table, "ROWS", held)
    numbers = range(20)
    table = pa.table({"uri": [f"{i}.jpg" for i in numbers], "image": [b"%d" % i for i in numbers], "n": numbers})
    deleted = (0, 3, 4, 5, 7, 8, 19)
    add = write_file(tmp_path, "a.parquet", table, deletionVector=inline_vector(*deleted))
    write_log(tmp_path, [column("uri", "string"), column("image", "binary"), column("n", "long")], [add])
    left = [i for i in numbers if i not in deleted]
    assert kept(tmp_path, "n") == [(f"{i}.jpg", i) for i in left]
    assert kept(tmp_path, "n", column="image") == [(str(i), i) for i in left]
    file = DataFile(File(f"{tmp_path}/a.parquet", None, ""), deleted=np.array(deleted))
    found = parquet_items(fsspec.filesystem("file"), file, "image", "a", Keep())
    assert [(item.uri, item.position) for item in found] == [(f"a!/{i}", i) for i in left]
    assert pq.read_metadata(tmp_path / "a.parquet").num_row_groups == 7
