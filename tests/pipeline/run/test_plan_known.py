"""A run plans the images that earlier runs did not annotate."""

import os

import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.run.plan import overtaken_ids, prepare, too_many_failed
from tests.plugins.plans import manifest, write_block


def test_images_that_a_committed_run_annotated_are_not_planned_again(config, corpus, commit):
    first = prepare(config(run_id="first"))
    table = manifest(first)
    commit("first", table.column("image_id").to_pylist()[:15], first.tables.model)
    commit("second", table.column("image_id").to_pylist()[10:22], first.tables.model)
    plan = prepare(config())
    assert manifest(plan).equals(table[22:])
    assert (plan.manifest.listed, plan.manifest.known, plan.manifest.rows, plan.todo.tolist()) == (40, 22, 18, [0, 1])
    settled = plan.output.read_json("_work/r/plan.json")
    assert (settled["listed"], settled["known"], settled["rows"]) == (40, 22, 18)


@pytest.mark.parametrize(
    ("had", "asked", "known"),
    [
        ({}, {}, True),
        ({}, {"reannotate": True}, False),
        ({}, {"schemes": "valence"}, True),
        ({"schemes": ("valence", "arousal")}, {}, False),
        ({"schemes": ("valence", "arousal")}, {"schemes": "arousal,valence"}, True),
        ({"schemes": ("valence", "arousal")}, {"schemes": "valence,polarity2"}, False),
        ({"keep_embeddings": False}, {"keep_embeddings": True}, False),
        ({"keep_embeddings": True}, {"keep_embeddings": True}, True),
        ({"keep_embeddings": True}, {}, True),
        ({"model": "ugrie-tiny@000000000000"}, {}, False),
    ],
)
def test_annotated_before_is_what_has_all_that_is_asked_for_by_the_same_model(config, commit, had, asked, known):
    first = prepare(config(run_id="first"))
    commit("first", manifest(first).column("image_id").to_pylist(), **{"model": first.tables.model} | had)
    assert prepare(config(**asked)).manifest.known == (40 if known else 0)


def test_images_whose_failure_may_pass_are_retried_for_some_days_by_themselves(config, commit, caplog):
    caplog.set_level("INFO")
    first = prepare(config(run_id="first"))
    ids, model = manifest(first).column("image_id").to_pylist(), first.tables.model
    commit("first", ids[:10], model)
    commit("late", ids[10:20], model, status="timeout", days_ago=2)
    commit("broken", ids[20:30], model, status="corrupt", days_ago=2)
    commit("later", ids[10:12], model, days_ago=1)
    plan = prepare(config(run_id="again"))
    assert manifest(plan).column("image_id").to_pylist() == [*ids[12:20], *ids[30:]]
    assert manifest(plan).column("retried").to_pylist() == [True] * 8 + [False] * 10
    assert (plan.manifest.listed, plan.manifest.known, plan.manifest.retried, plan.manifest.rows) == (40, 22, 8, 18)
    assert "40 images are listed, of which 22 were annotated before, 8 failed before and are retried and 10 are new" in caplog.text
    assert prepare(config(run_id="never", retry_days=0)).manifest.known == 30
    commit("failed before that", ids[12:15], model, status="missing", days_ago=4)
    assert manifest(prepare(config(run_id="fewer"))).column("image_id").to_pylist() == [*ids[15:20], *ids[30:]]
    assert prepare(config(run_id="more", retry_days=5)).manifest.retried == 8
    with pytest.raises(UserError, match="run again was begun with retry_days = 3, not 5"):
        prepare(config(run_id="again", retry_days=5))


def test_a_run_with_too_many_failures_does_those_again_and_leaves_the_next_date_to_another_run(config, commit, caplog):
    caplog.set_level("INFO")
    plan = prepare(config(date="2026-01-02"))
    for number in range(5):
        write_block(plan, number)
    too_many_failed(plan, [1, 4])
    too_many_failed(plan, [1])  # another driver of the same run
    assert prepare(config()).todo.tolist() == [1, 4]

    def resumed(date):
        settings = config(resume=True, date=date).model_dump(exclude={"run_id"}, exclude_unset=True)
        return prepare(AnnotateConfig(**settings))

    assert resumed("2026-01-02").config.run_id == "r"
    later = resumed("2026-01-03")
    assert (later.config.run_id == "r", later.manifest.rows, later.todo.tolist()) == (False, 40, [0, 1, 2, 3, 4])
    assert "run r is not resumed: too many of its images failed" in caplog.text


def test_an_image_that_changed_is_new(config, commit, images, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(images.jpeg(1))
    first = prepare(config(run_id="first", input=str(tmp_path / "in")))
    commit("first", manifest(first).column("image_id").to_pylist(), first.tables.model)
    (tmp_path / "in" / "b.jpg").write_bytes(images.jpeg(2))
    os.utime(tmp_path / "in" / "b.jpg", (1, 1))
    assert manifest(prepare(config(input=str(tmp_path / "in")))).column("uri").to_pylist() == [f"file://{tmp_path}/in/b.jpg"]


def test_a_limit_counts_new_images(config, corpus, commit):
    first = prepare(config(run_id="first"))
    table = manifest(first)
    commit("first", table.column("image_id").to_pylist()[5:15], first.tables.model)
    plan = prepare(config(limit=7))
    assert manifest(plan).column("uri").to_pylist() == [f"file://{path}" for path in [*corpus.files[:5], *corpus.files[15:17]]]
    assert (plan.manifest.listed, plan.manifest.known) == (17, 10)


def test_a_run_that_goes_on_leaves_out_blocks_whose_images_another_run_annotated_meanwhile(config, commit):
    old = prepare(config(run_id="old"))
    ids, model = manifest(old).column("image_id").to_pylist(), old.tables.model
    commit("old", ids[:4], model)
    plan = prepare(config())
    assert (plan.before, overtaken_ids(plan).tolist()) == ({"old"}, [])
    commit("another model", ids, "m@1")
    commit("failed", ids[13:30], model, status="timeout", days_ago=0)
    assert prepare(config()).todo.tolist() == [0, 1, 2, 3]
    commit("other", ids[4:25], model)
    assert overtaken_ids(plan).tolist() == sorted(ids[4:25])
    again = prepare(config())
    assert (again.manifest, again.todo.tolist()) == (plan.manifest, [2, 3])
    write_block(plan, 2)
    assert prepare(config()).todo.tolist() == [3]


def test_a_run_that_annotates_everything_again_is_not_overtaken(config, commit):
    plan = prepare(config(reannotate=True))
    commit("other", manifest(plan).column("image_id").to_pylist(), plan.tables.model)
    assert prepare(config(reannotate=True)).todo.tolist() == [0, 1, 2, 3, 4]


def test_where_nothing_is_new_there_is_nothing_to_do(config, commit):
    first = prepare(config(run_id="first"))
    commit("first", manifest(first).column("image_id").to_pylist(), first.tables.model)
    plan = prepare(config())
    assert (plan.manifest.listed, plan.manifest.known, plan.manifest.rows, plan.todo.tolist()) == (40, 40, 0, [])
    assert prepare(config()).manifest == plan.manifest
