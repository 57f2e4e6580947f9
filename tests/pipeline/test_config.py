"""Settings of a run."""

import datetime as dt

import pytest
from pydantic import ValidationError

from pipeline.config import INPUT, LIMITS, MODEL, OPERATIONS, OUTPUT, RESOURCES, AnnotateConfig

GROUPS = [INPUT, OUTPUT, MODEL, RESOURCES, LIMITS, OPERATIONS]


def config(**settings):
    return AnnotateConfig(**{"input": "in", "output": "out"} | settings)


@pytest.mark.parametrize("given", ["polarity2, valence", ["polarity2", "valence"], ("polarity2,valence",), "polarity2,,valence,"])
def test_schemes_are_given_with_commas_or_as_a_list(given):
    assert config(schemes=given).schemes == ("polarity2", "valence")


def test_columns_to_keep_are_given_in_the_same_ways_and_are_in_the_record():
    for given in ("post=id, user_id", ["post=id", "user_id"]):
        assert config(keep_columns=given).keep_columns == ("post=id", "user_id")
        assert config(keep_columns=given).public()["keep_columns"] == ["post=id", "user_id"]


def test_all_schemes_are_annotated_where_none_are_named():
    assert config().schemes is None


def test_a_run_is_named_and_dated_by_itself_each_time_otherwise():
    one, other = config(), config()
    assert one.run_id != other.run_id
    assert abs(one.date - dt.datetime.now(dt.UTC).date()) <= dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input", ""),
        ("output", ""),
        ("run_id", "../elsewhere"),
        ("run_id", "_work"),
        ("run_id", "x" * 65),
        ("date", "2024-13-40"),
        ("limit", 0),
        ("block_rows", 0),
        ("block_rows", 4097),
        ("batch_size", 0),
        ("fetch_timeout", 0),
        ("device", "tpu"),
        ("gpus_per_actor", 1.5),
        ("max_bytes", -1),
        ("storage_options", "key"),
        ("batchsize", 3),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(name, value):
    with pytest.raises(ValidationError) as refused:
        config(**{name: value})
    assert [error["loc"] for error in refused.value.errors()] == [(name,)]


def test_a_configuration_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        config().limit = 3


def test_every_setting_has_a_group_and_groups_stand_together_after_the_required_settings():
    groups = {name: [entry for entry in field.metadata if entry in GROUPS] for name, field in AnnotateConfig.model_fields.items()}
    assert all(len(found) == 1 for found in groups.values())
    order = [GROUPS.index(group) for (group,) in groups.values()]
    assert order[:2] == [GROUPS.index(INPUT), GROUPS.index(OUTPUT)]
    assert order[2:] == sorted(order[2:])


def test_every_setting_says_what_it_is():
    assert [name for name, field in AnnotateConfig.model_fields.items() if not field.description] == []


def test_what_is_public_has_no_secrets():
    given = config(
        input="https://me:hunter2@host.org/list.csv?signature=hunter2",
        output="s3://key:hunter2@bucket/out",
        model="https://host.org/model?token=hunter2",
        storage_options={"secret": "hunter2"},
    )
    public = given.public()
    assert "hunter2" not in str(public)
    assert "storage_options" not in public
    assert public["input"] == "https://host.org/list.csv"
    assert public["output"] == "s3://bucket/out"
