"""The images that earlier runs annotated, and those that are retried."""

import datetime as dt

import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.run.earlier import images_of
from pipeline.table.run_record import past_runs
from pipeline.table.schema import Tables
from ugrie.schemes.scheme import load_scheme

COMMITTED = dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("settings", "hours", "annotated", "failed"),
    [
        ({}, 71, [0, 1, 2], [3]),
        ({}, 72, [0, 1, 2], [3]),
        ({}, 73, [0, 1, 2, 3], []),
        ({"retry_days": 0}, -1, [0, 1, 2, 3], []),
        ({"retry_days": 36_500}, 10_000, [0, 1, 2], [3]),
        ({"reannotate": True}, 1, [], []),
        ({"keep_embeddings": True}, 1, [], []),
    ],
)
def test_an_image_is_retried_until_the_days_have_passed_since_it_first_failed(made, settings, hours, annotated, failed):
    made.commit("r", range(4))  # of which 3 failed
    config = AnnotateConfig(input="in", output=made.output, **settings)
    tables = Tables((load_scheme("valence"),), crop_size=8, embedding_dim=None, tower="t", model=made.model)
    found = images_of(made.folder, config, tables, past_runs(made.folder), COMMITTED + dt.timedelta(hours=hours))
    assert (found.annotated.tolist(), found.failed.tolist()) == (annotated, failed)


def test_files_that_an_erasure_replaced_meanwhile_are_found_by_the_new_record(made):
    record = made.commit("r", range(3))
    new = made.write("r", [0, 2], made.schema(["polarity3", "valence"]), attempt="bbbbbbbb")
    config = AnnotateConfig(input="in", output=made.output)
    tables = Tables((load_scheme("valence"),), crop_size=8, embedding_dim=None, tower="t", model=made.model)
    made.folder.remove(record.files[0])
    with pytest.raises(UserError, match="restore it, or remove the record"):
        images_of(made.folder, config, tables, [record], COMMITTED)
    made.folder.write("runs/r.json", record.model_copy(update={"files": (new,)}).to_json())
    assert images_of(made.folder, config, tables, [record], COMMITTED).annotated.tolist() == [0, 2]
