"""Columns kept from the input: their names, their types, and the IDs of rows."""

import datetime as dt
import decimal
import uuid

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.table.kept_columns import Keep, check_names, hash_row, kept_type, row_texts
from pipeline.table.schema import Tables
from ugrie.schemes.scheme import load_scheme

TABLES = Tables((load_scheme("valence"),), crop_size=8, embedding_dim=None, tower="t", model="m@1")


def test_columns_are_renamed_by_new_and_old_name():
    assert Keep(["post=id", "user_id", "a = b=c"]).columns == {"post": "id", "user_id": "user_id", "a": "b=c"}
    assert not Keep()


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        (["post="], "'post=' is no column: give names, or new=old"),
        (["=id"], "'=id' is no column"),
        (["post id"], "'post id' can't be a column of the table: give it a plain name by new=old"),
        (["place.name"], "'place.name' can't be a column"),
        (["a", "A=b"], "names two columns 'A': rename one by new=old"),
    ],
)
def test_entries_that_can_name_no_column_are_refused(entries, problem):
    with pytest.raises(UserError, match=f"keep_columns.*{problem}"):
        Keep(entries)


@pytest.mark.parametrize(
    "name", ["uri", "image_id", "Status", "bytes", "run_id", "valence", "ekman6", "dt", "embedding", "row_id", "zero_shot"]
)
def test_names_of_our_own_columns_and_of_schemes_are_refused_with_the_remedy(name):
    with pytest.raises(UserError, match=f"the table has a column '{name.lower()}' of its own: .* such as input_{name}={name}$"):
        check_names(Keep([name]), TABLES)
    with pytest.raises(UserError, match=f"such as input_{name}=id$"):
        check_names(Keep([f"{name}=id"]), TABLES)
    check_names(Keep([f"input_{name}={name}", "owner", "block", "size", "version", "crop"]), TABLES)


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (pa.large_string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
        (pa.large_list(pa.field("item", pa.large_binary(), nullable=False)), pa.list_(pa.binary())),
        (pa.struct([pa.field("a", pa.dictionary(pa.int32(), pa.int64()), nullable=False)]), pa.struct([("a", pa.int64())])),
        (pa.map_(pa.string(), pa.large_string()), pa.map_(pa.string(), pa.string())),
        (pa.list_(pa.string_view(), 3), pa.list_(pa.string(), 3)),
        (pa.uuid(), pa.binary(16)),
        (pa.null(), pa.string()),
        *(
            (kind, kind)
            for kind in (pa.int8(), pa.uint64(), pa.decimal256(60, 3), pa.timestamp("ns", "Asia/Tokyo"), pa.float16(), pa.bool_())
        ),
    ],
)
def test_types_stay_but_for_what_only_arrow_tells_apart(kind, kept):
    assert kept_type(kind).equals(kept)
    batch = Keep(["x"]).batch([pa.nulls(2, kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind)], "f")
    assert batch.column("x").null_count == 2


def test_values_stay_when_their_type_changes():
    keep = Keep(["d", "l", "u"])
    key = uuid.uuid4()
    columns = [
        pa.array(["a", None, "a"]).dictionary_encode(),
        pa.array([["x"], None, []], pa.large_list(pa.large_string())),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([key.bytes, None, None], pa.binary(16))),
    ]
    assert keep.batch(columns, "f").to_pydict() == {"d": ["a", None, "a"], "l": [["x"], None, []], "u": [key.bytes, None, None]}


def test_all_files_have_the_types_of_the_first_or_only_nulls():
    keep = Keep(["post=id"])
    assert keep.batch([pa.array([1, None])], "a.parquet").schema == pa.schema([("post", pa.int64())])
    assert keep.batch([pa.nulls(1)], "b.parquet").to_pydict() == {"post": [None]}
    with pytest.raises(UserError, match=r"column 'id' of c.parquet holds double, and int64 in the file before: write both with one type"):
        keep.batch([pa.array([1.0])], "c.parquet")


def test_keys_of_json_may_be_absent_from_some_objects_and_not_from_all():
    keep = Keep(["post_id", "user_id"])
    keep.check_found("in.csv")
    keep.note({"post_id": 1})
    keep.note({"user": 1})
    with pytest.raises(UserError, match=r"no row of in.jsonl has 'user_id' \(did you mean 'user'\?\); they have post_id, user"):
        keep.check_found("in.jsonl")
    keep.note({"user_id": 1})
    keep.check_found("in.jsonl")


VALUES = pa.table(
    {
        "when": pa.array([dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC")),
        "price": pa.array([decimal.Decimal("1.50"), None], pa.decimal128(9, 2)),
        "name": pa.array(["é\n", None]),
        "tags": pa.array([["a", None], None], pa.list_(pa.string())),
        "place": pa.array(
            [{"lat": 0.1, "on": [dt.date(2026, 1, 1)]}, None], pa.struct([("lat", pa.float32()), ("on", pa.list_(pa.date32()))])
        ),
        "marks": pa.array([[("k", b"\x01")], None], pa.map_(pa.string(), pa.binary())),
        "flag": pa.array([True, None]),
    }
)


def test_an_id_of_a_row_stays_the_same_for_ever():
    text, nulls = row_texts(np.array([-7, 5]), VALUES)
    assert text.decode() == (
        '-7\0["flag","marks","name","place","price","tags","when"]\0'
        '[true,[["k","01"]],"é\\n",{"lat":0.10000000149011612,"on":[20454]},"1.50",["a",null],1767322800000000]'
    )
    assert nulls.decode().endswith("\0[null,null,null,null,null,null,null]")
    assert [hash_row(text).hex(), hash_row(text, 1).hex()] == ["6c3039ea6e09e6ed", "59ead45687d95fca"]


def test_rows_differ_by_image_by_value_and_by_name_and_not_by_the_order_of_columns():
    images = np.array([1, 2])
    same = row_texts(images, VALUES)
    assert row_texts(images, VALUES.select(VALUES.column_names[::-1])) == same
    others = [row_texts(images[::-1], VALUES), row_texts(images, VALUES.rename_columns([f"{name}2" for name in VALUES.column_names]))]
    empty = VALUES.set_column(2, "name", pa.array(["é\n", ""]))
    assert len({*same, *(text for texts in others for text in texts), row_texts(images, empty)[1]}) == 7
