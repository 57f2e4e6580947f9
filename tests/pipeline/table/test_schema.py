"""The tables that go from operator to operator."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.table.schema import SCHEMA_VERSION, Tables, expect, scheme_type
from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.scheme import load_scheme

SCHEMES = (load_scheme("ekman6"), load_scheme("valence"))


def tables(embedding_dim=None):
    return Tables(SCHEMES, crop_size=8, embedding_dim=embedding_dim, model="m@123", tower="t123")


def test_the_output_has_the_columns_that_are_promised():
    schema = tables(embedding_dim=4).output
    assert schema.names == [
        *("image_id", "uri", "content_hash", "width", "height", "bytes", "status", "error", "sentence"),
        *("ekman6", "valence", "embedding", "model", "run_id", "annotated_at"),
    ]
    assert schema.field("image_id").type == pa.int64()
    assert schema.field("ekman6").type == pa.struct({"label": pa.string(), "score": pa.float32(), "probs": pa.list_(pa.float32())})
    assert schema.field("valence").type == pa.struct({"value": pa.float32(), "probs": pa.list_(pa.float32())})
    assert schema.field("embedding").type == pa.list_(pa.float16(), 4)
    assert schema.field("annotated_at").type == pa.timestamp("us", "UTC")


def test_embeddings_are_a_column_only_where_they_are_kept():
    assert "embedding" not in tables().output.names


def test_what_identifies_a_row_is_never_null():
    required = {field.name for field in tables(4).output if not field.nullable}
    assert required == {"image_id", "uri", "status", "model", "run_id", "annotated_at"}


def test_the_metadata_states_each_schemes_labels_in_order():
    about = json.loads(tables().output.metadata[b"ugrie"])
    assert (about["schema_version"], about["model"], about["tower"]) == (SCHEMA_VERSION, "m@123", "t123")
    ekman6, valence = about["schemes"]["ekman6"], about["schemes"]["valence"]
    assert (ekman6["kind"], ekman6["labels"]) == ("categorical", ["anger", "disgust", "fear", "joy", "sadness", "surprise"])
    assert ekman6["polarities"] == ["negative", "negative", "negative", "positive", "negative", None]
    assert (valence["kind"], valence["range"], valence["values"]) == ("ordinal", [1, 9], list(range(1, 10)))
    assert len(valence["labels"]) == 9


def test_what_was_zero_shot_is_a_column_and_in_the_metadata_and_else_neither_is():
    answers = {"valence": ZeroShot(SCHEMES[1], "d123", np.eye(2), np.zeros(2))}
    some = Tables(SCHEMES, crop_size=8, embedding_dim=4, model="m@123", tower="t123", zero_shot=answers)
    assert some.output.names[9:13] == ["ekman6", "valence", "zero_shot", "embedding"]
    assert some.output.field("zero_shot").type == pa.list_(pa.string())
    assert some.of_content[-2:] == ["zero_shot", "embedding"]
    schemes = json.loads(some.output.metadata[b"ugrie"])["schemes"]
    assert ["zero_shot" in schemes[name] for name in ("ekman6", "valence")] == [False, True]
    assert (some.answered, some.zero_shot_digests) == (("ekman6", answers["valence"]), {"valence": "d123"})
    assert "zero_shot" not in json.dumps(json.loads(tables().output.metadata[b"ugrie"]))
    assert (tables().answered, tables().zero_shot_digests) == (("ekman6", "valence"), {})


def test_the_annotated_table_is_the_output_with_what_is_internal_and_its_times():
    names = tables(4).annotated.names
    assert names == ["block", "owner", *tables(4).output.names, "fetch_seconds", "decode_seconds", "annotate_seconds"]
    assert tables(4).written.names == ["owner", *tables(4).output.names]


def test_what_the_bytes_say_is_told_from_what_a_row_has_for_itself():
    own = {"image_id", "uri", "content_hash", "bytes", "model", "run_id", "annotated_at"}
    assert tables(4).of_content == ["width", "height", "status", "error", "sentence", "ekman6", "valence", "embedding"]
    assert {*tables(4).of_content, *own} == set(tables(4).output.names)


def test_a_crop_has_as_many_bytes_as_its_pixels():
    assert tables().loaded.field("crop").type == pa.binary(3 * 8 * 8)


def test_a_scheme_is_a_struct_of_its_kind():
    assert [field.name for field in scheme_type(load_scheme("arousal"))] == ["value", "probs"]
    assert [field.name for field in scheme_type(load_scheme("polarity2"))] == ["label", "score", "probs"]


SCHEMA = pa.schema({"block": pa.int32(), "uri": pa.string()})


def test_a_table_as_declared_goes_through():
    table = pa.table({"block": [1], "uri": ["a"]}, SCHEMA)
    assert expect(table, SCHEMA, "load") is table


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"block": pa.array([1], pa.int64()), "uri": ["a"]}, "load: column block int32 was declared, block int64 received"),
        ({"block": pa.array([1], pa.int32()), "url": ["a"]}, "load: column uri string was declared, url string received"),
        ({"uri": ["a"], "block": pa.array([1], pa.int32())}, "load: column block int32 was declared, uri string received"),
        ({"block": pa.array([1], pa.int32())}, r"load: columns \['block', 'uri'\] were declared, \['block'\] received"),
        ({"block": pa.array([1], pa.int32()), "uri": ["a"], "x": [1]}, r"load: columns .* were declared, \['block', 'uri', 'x'\] received"),
    ],
)
def test_another_table_is_refused_with_the_column_that_differs(columns, message):
    with pytest.raises(TypeError, match=message):
        expect(pa.table(columns), SCHEMA, "load")


def test_columns_kept_from_the_input_are_in_the_output_and_in_no_operators_table():
    kept = replace(tables(), kept=pa.schema([("post", pa.int64()), ("tags", pa.list_(pa.string()))]))
    assert kept.output.names == [*tables().output.names[:8], "row_id", "post", "tags", *tables().output.names[8:]]
    assert kept.output.metadata == tables().output.metadata
    for name in ("loaded", "annotated", "written", "of_content"):
        assert getattr(kept, name) == getattr(tables(), name)
