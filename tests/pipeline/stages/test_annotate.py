"""The second operator: annotates crops."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import AnnotateConfig
from pipeline.run.plan import prepare
from pipeline.stages.annotate import Annotator, planned_model, planned_tower, view


@pytest.fixture(scope="module")
def plan(corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("annotator")
    config = AnnotateConfig(input=str(corpus.folder), output=str(output), run_id="r", block_rows=24, keep_embeddings=True, batch_size=5)
    return prepare(config)


@pytest.fixture(scope="module")
def loaded(model_operators, plan):
    return model_operators.load(plan, 1)


@pytest.fixture(scope="module")
def annotated(model_operators, plan, loaded):
    return model_operators.annotator(plan)(loaded)


def test_a_table_that_is_not_as_declared_is_refused_by_its_column(model_operators, plan, loaded):
    with pytest.raises(TypeError, match="annotate: column status string was declared, state string received"):
        model_operators.annotator(plan)(loaded.rename_columns(["state" if name == "status" else name for name in loaded.column_names]))
    with pytest.raises(TypeError, match="annotate: column crop"):
        model_operators.annotator(plan)(loaded.drop_columns("crop"))


@pytest.mark.parametrize(("asked", "taken"), [(None, 3), (5, 5)])
def test_the_batch_size_is_the_one_asked_for_or_what_the_device_likes_best(model_operators, plan, monkeypatch, asked, taken):
    monkeypatch.setattr("ugrie.vision.batch_size.best_batch_size", lambda encoder: 3)
    config = plan.config.model_copy(update={"batch_size": asked})
    assert Annotator(model_operators._of(replace(plan, config=config))[1]).model.encoder.batch_size == taken


def test_two_blocks_at_once_are_annotated_as_one_after_the_other(model_operators, plan, loaded, annotated):
    annotator = model_operators.annotator(plan)
    with ThreadPoolExecutor(2) as pool:
        for twin in pool.map(annotator, [loaded, loaded]):
            assert twin.drop_columns(["annotated_at", "annotate_seconds"]).equals(
                annotated.drop_columns(["annotated_at", "annotate_seconds"])
            )


def test_every_row_stays_in_its_place(plan, loaded, annotated):
    assert annotated.schema.equals(plan.tables.annotated, check_metadata=True)
    for name in ("block", "image_id", "uri", "content_hash", "width", "height", "bytes", "status", "error"):
        assert annotated.column(name).equals(loaded.column(name))


def test_failed_images_have_no_labels_and_the_others_have_them_all(plan, annotated):
    schemes = [scheme.name for scheme in plan.tables.schemes]
    statuses = set()
    for row in annotated.to_pylist():
        given = [row[name] is not None for name in (*schemes, "sentence", "embedding")]
        assert given == [row["status"] == "ok"] * len(given)
        statuses.add(row["status"] == "ok")
    assert statuses == {True, False}


def test_labels_agree_with_their_probabilities_and_the_sentence(plan, annotated):
    for row in annotated.to_pylist():
        for scheme in plan.tables.schemes if row["status"] == "ok" else ():
            reading = row[scheme.name]
            assert sum(reading["probs"]) == pytest.approx(1, abs=1e-4)
            assert len(reading["probs"]) == len(scheme.labels)
            if scheme.kind == "categorical":
                chosen = scheme.label_names.index(reading["label"])
                assert reading["score"] == reading["probs"][chosen]
                if scheme is plan.tables.schemes[0]:  # later labels don't contradict this one, and so may be less likely
                    assert chosen == int(np.argmax(reading["probs"]))
                assert f"{scheme.clause} {reading['label']}" in row["sentence"]
            else:
                assert reading["value"] == pytest.approx(np.dot(reading["probs"], scheme.values), abs=1e-4)


def test_the_model_itself_says_the_same_of_an_image(corpus, plan, annotated, model_operators):
    row = next(row for row in annotated.to_pylist() if row["uri"].endswith("/photo.webp"))
    (expected,) = model_operators.annotator(plan).model.annotate([corpus.folder / "b" / "photo.webp"])
    assert row["sentence"] == expected.sentence
    for name, reading in expected.readings.items():
        assert row[name]["probs"] == pytest.approx(list(reading.probs.values()), abs=1e-4)


def test_the_model_says_the_same_of_the_embedding_alone(plan, annotated, model_operators):
    good = [row for row in annotated.to_pylist() if row["status"] == "ok"]
    embeddings = np.array([row["embedding"] for row in good])
    for row, expected in zip(good, model_operators.annotator(plan).model.annotate_embeddings(embeddings), strict=True):
        for name, reading in expected.readings.items():
            assert row[name]["probs"] == pytest.approx(list(reading.probs.values()), abs=5e-3)


def test_the_row_says_which_model_and_run_it_is_of(plan, annotated):
    assert set(annotated.column("model").to_pylist()) == {plan.tables.model}
    assert set(annotated.column("run_id").to_pylist()) == {"r"}
    assert all(str(value.tzinfo) == "UTC" for value in annotated.column("annotated_at").to_pylist())


def test_a_block_whose_images_all_failed_is_annotated_with_nothing(model_operators, plan, loaded):
    failed = loaded.filter(pa.compute.not_equal(loaded.column("status"), "ok"))
    assert len(failed) > 1
    result = model_operators.annotator(plan)(failed)
    assert result.column("image_id").equals(failed.column("image_id"))
    for name in (*(scheme.name for scheme in plan.tables.schemes), "sentence", "embedding"):
        assert result.column(name).null_count == len(failed)


def test_the_batch_an_image_is_in_does_not_change_what_is_said_of_it(model_operators, plan, loaded, annotated, rows):
    chunks = [model_operators.annotator(plan)(loaded.slice(i, 7)) for i in range(0, len(loaded), 7)]
    assert rows.differences(pa.concat_tables(chunks).to_pylist(), annotated.to_pylist(), lambda row: row["image_id"]) == []


def test_only_the_schemes_that_are_asked_for_are_annotated(corpus, model_operators, tmp_path):
    plan = prepare(AnnotateConfig(input=str(corpus.folder / "a"), output=str(tmp_path), schemes="valence,polarity2", limit=3))
    result = model_operators.annotator(plan)(model_operators.load(plan, 0))
    assert [name for name in result.column_names if pa.types.is_struct(result.schema.field(name).type)] == ["valence", "polarity2"]
    assert "embedding" not in result.column_names


def test_crops_are_seen_without_a_copy_wherever_they_begin():
    pixels = np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3)
    column = pa.array([each.tobytes() for each in pixels], pa.binary(12))
    assert np.array_equal(view(pa.chunked_array([column]), 2), pixels)
    assert np.array_equal(view(pa.chunked_array([column.slice(2, 2)]), 2), pixels[2:4])
    assert np.array_equal(view(pa.chunked_array([column.slice(0, 1), column.slice(3)]), 2), pixels[[0, 3, 4]])
    assert not view(pa.chunked_array([column]), 2).flags.owndata


def test_a_worker_with_other_weights_of_the_tower_ends_the_run(corpus, operators, tmp_path):
    weights = tmp_path / "clip.safetensors"
    weights.write_bytes(b"weights")
    config = AnnotateConfig(input=str(corpus.folder), output=str(tmp_path / "out"), model="ugrie-l14", tower_weights=str(weights))
    settings = operators._of(prepare(config))[1]
    folder = planned_model(settings)
    assert planned_tower(settings, folder) == str(weights)
    weights.write_bytes(b"others!")
    with pytest.raises(
        RuntimeError, match=r"clip\.safetensors on this worker holds the image tower \w{12}, not the planned \w{12}: put the same"
    ):
        planned_tower(settings, folder)
