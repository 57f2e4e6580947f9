"""Runs that annotate schemes which the model was not trained for: what is refused before they begin, and what comes out."""

import datetime as dt
import json

import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.estimate.dry_run import check
from pipeline.images.decode import identity
from pipeline.run.plan import prepare
from pipeline.run.summary import summary
from pipeline.stages.annotate import Annotator
from pipeline.stages.dedup import EarlierRows
from pipeline.stages.merge import NO_BLOCKS
from ugrie import UGRIE

QUADRANTS = """
name = "quadrant4"
title = "Quadrants"
kind = "categorical"
clause = "the state of mind is"
source = "a test"
[[labels]]
name = "excited"
polarity = "positive"
synonyms = ["elated"]
[[labels]]
name = "tense"
polarity = "negative"
[[labels]]
name = "gloomy"
polarity = "negative"
[[labels]]
name = "calm"
polarity = "positive"
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UGRIE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def quadrants(tmp_path):
    (tmp_path / "quadrant4.toml").write_text(QUADRANTS)
    return tmp_path / "quadrant4.toml"


@pytest.fixture
def config(corpus, clip_model, quadrants, tmp_path):
    def make(**settings):
        given = {"input": str(corpus.folder), "output": str(tmp_path / "out"), "run_id": "r", "batch_size": 8}
        given |= {"schemes": f"ekman6,{quadrants},arousal", **clip_model.settings}
        return AnnotateConfig(**{key: value for key, value in (given | settings).items() if value is not None})

    return make


@pytest.fixture
def annotate(annotate_here, monkeypatch):
    """Whole runs without Ray, with the model itself."""
    monkeypatch.setattr("benchmarks.stubs.Annotator", Annotator)
    return annotate_here


def rows_of(output, record):
    return [row for file in record.files for row in pq.read_table(output / file, partitioning=None).to_pylist()]


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model": "ugrie-tiny", "tower_weights": None, "schemes": "ekman6"},
            "ugrie-tiny was not trained for 'ekman6'; it knows .*arousal; zero-shot answers to other schemes need a model whose image "
            "tower is a CLIP that open_clip knows by name, such as ugrie-l14",
        ),
        ({"schemes": "valense"}, r"small was not trained for 'valense' \(did you mean 'valence'\?\); .* by the path of the .toml file"),
        ({"schemes": "nowhere/mood.toml"}, r"nowhere/mood\.toml: there is no such scheme file"),
        ({"schemes": "mikels8,mikels8"}, "two schemes of the template have the name 'mikels8'"),
    ],
)
def test_what_cannot_be_answered_is_refused_on_one_line(config, tmp_path, settings, message):
    with pytest.raises(UserError, match=message) as error:
        prepare(config(**settings))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_weights_without_the_clip_are_refused_before_the_run_and_by_the_dry_run(config, tmp_path):
    broken = tmp_path / "clip.safetensors"
    broken.write_bytes(b"not weights at all")
    message = (
        f"small was not trained for quadrant4, arousal, and can't answer zero-shot: the text tower of .* can't be loaded from {broken}"
    )
    with pytest.raises(UserError, match=message) as error:
        prepare(config(tower_weights=str(broken)))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ExceptionGroup) as problems:
        check(config(tower_weights=str(broken)))
    assert [str(each) for each in problems.value.exceptions] == [str(error.value)]


@pytest.mark.parametrize("name", ["status", "dt", "embedding", "row", "zero_shot"])
def test_a_scheme_of_another_column_name_is_refused(config, quadrants, name):
    renamed = quadrants.with_name(f"{name}.toml")
    renamed.write_text(QUADRANTS.replace('"quadrant4"', f'"{name}"'))
    with pytest.raises(UserError, match=f"scheme {name}: the table has a column of that name: rename the scheme and its file"):
        prepare(config(schemes=f"ekman6,{renamed}"))


def test_a_file_of_a_scheme_that_the_model_was_trained_for_is_refused(config, quadrants):
    renamed = quadrants.with_name("ekman6.toml")
    renamed.write_text(QUADRANTS.replace('"quadrant4"', '"ekman6"'))
    with pytest.raises(UserError, match=r"ekman6\.toml: small was trained for ekman6: give that name, or rename the scheme and its file"):
        prepare(config(schemes=str(renamed)))


def test_a_run_does_not_go_on_with_another_scheme_in_the_same_file(config, quadrants):
    prepare(config())
    assert prepare(config()).manifest.rows == 40
    quadrants.write_text(QUADRANTS.replace("elated", "thrilled"))
    with pytest.raises(UserError, match=r"run r was begun with zero_shot = .*quadrant4.*: give that again, or another --run-id"):
        prepare(config())


# Rows


@pytest.fixture
def operated(config, model_operators):
    plan = prepare(config())
    return plan, model_operators.rows(plan)


def test_rows_say_what_was_zero_shot_and_agree_with_the_model(operated, corpus, clip_model, quadrants):
    _, found = operated
    model = UGRIE.from_pretrained(clip_model.folder, tower_weights=clip_model.weights)
    good = [(row, file) for row, file in zip(found, corpus.files, strict=True) if row["status"] == "ok"]
    expected = model.annotate([file for _, file in good], schemes=["ekman6", str(quadrants), "arousal"])
    for (row, _), annotation in zip(good, expected, strict=True):
        assert row["zero_shot"] == ["quadrant4", "arousal"]
        assert row["sentence"] == annotation.sentence
        assert f", the state of mind is {row['quadrant4']['label']}, the intensity is " in row["sentence"]
        for name in ("ekman6", "quadrant4", "arousal"):
            assert row[name]["probs"] == pytest.approx(list(annotation[name].probs.values()), abs=1e-4)
    assert len({row["quadrant4"]["label"] for row, _ in good}) > 1
    for row in found:
        if row["status"] != "ok":
            assert row["zero_shot"] is row["quadrant4"] is row["arousal"] is row["sentence"] is None


def test_the_trained_schemes_are_answered_as_without_the_others(operated, config, model_operators, rows):
    alone = model_operators.rows(prepare(config(schemes="ekman6", output=f"{config().output}-alone")))
    for row, other in zip(operated[1], alone, strict=True):
        assert "zero_shot" not in other
        assert (row["ekman6"] is None) == (other["ekman6"] is None)
        if row["ekman6"]:
            assert row["ekman6"]["probs"] == pytest.approx(other["ekman6"]["probs"], abs=1e-5)


def test_rows_are_the_same_whatever_block_they_are_in_and_also_when_resumed(operated, config, model_operators, rows):
    plan = prepare(config(block_rows=7, output=f"{config().output}-blocks"))
    model_operators.do(plan, plan.todo[::2])
    resumed = prepare(plan.config)
    assert resumed.todo.tolist() == plan.todo[1::2].tolist()
    assert resumed.tables.zero_shot == plan.tables.zero_shot
    found = model_operators.rows(resumed)
    assert rows.differences(found, operated[1], lambda row: row["uri"]) == []


def test_the_files_metadata_says_what_was_zero_shot(operated):
    plan, _ = operated
    with plan.output.open("annotations/part-0.parquet") as file:
        about = json.loads(pq.ParquetFile(file).schema_arrow.metadata[b"ugrie"])
    assert {name: scheme.get("zero_shot", False) for name, scheme in about["schemes"].items()} == {
        "ekman6": False,
        "quadrant4": True,
        "arousal": True,
    }


# Whole runs


def test_the_record_the_report_and_the_summary_say_what_was_zero_shot(config, annotate, tmp_path):
    record = annotate(config())
    assert list(record.schemes) == ["ekman6", "quadrant4", "arousal"]
    assert list(record.zero_shot) == ["quadrant4", "arousal"]
    assert list(json.loads((tmp_path / "out/runs/r.json").read_text())["zero_shot"]) == ["quadrant4", "arousal"]
    assert set(record.counts.labels["quadrant4"]) == {"excited", "tense", "gloomy", "calm"}
    html = (tmp_path / "out/runs/r.html").read_text()
    assert "<h3>quadrant4 (zero-shot)</h3>" in html
    assert "<h3>ekman6</h3>" in html
    assert "the model was not trained for the scheme" in html
    lines = summary(record, "out").splitlines()
    assert [line.endswith(" (zero-shot)") for line in lines if line.startswith(("  ekman6", "  quadrant4"))] == [False, True]


def test_stored_embeddings_are_answered_alike(config, annotate, model_operators, tmp_path):
    first = rows_of(tmp_path / "out", model_operators.commit(prepare(config(keep_embeddings=True))))
    good = {row["uri"]: row for row in first if row["status"] == "ok"}
    again = annotate(config(input=str(tmp_path / "out"), run_id="again", from_embeddings=True, reannotate=True))
    found = rows_of(tmp_path / "out", again)
    assert {row["uri"] for row in found} == good.keys()
    for row in found:
        assert row["zero_shot"] == ["quadrant4", "arousal"]
        assert row["quadrant4"]["probs"] == pytest.approx(good[row["uri"]]["quadrant4"]["probs"], abs=0.02)


def copied_from(plan):
    """Return the files of earlier runs whose rows a run may copy."""
    since = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    return EarlierRows(plan.output, plan.rows_folder, NO_BLOCKS, plan.tables, "fp32", since, identity(plan.config)).files()


def test_an_edited_scheme_is_annotated_on_the_next_night_and_nothing_is_copied(config, model_operators, quadrants):
    model_operators.commit(prepare(config()))
    same = prepare(config(run_id="same"))
    assert (same.manifest.known, same.manifest.rows, len(copied_from(same))) == (40, 0, 1)
    quadrants.write_text(QUADRANTS.replace("gloomy", "dejected"))
    edited = prepare(config(run_id="edited"))
    assert (edited.manifest.known, edited.manifest.rows, len(copied_from(edited))) == (0, 40, 0)


def test_a_worker_gets_the_vectors_with_the_plan_and_needs_neither_the_scheme_file_nor_the_text_tower(
    config, model_operators, quadrants, monkeypatch
):
    plan = prepare(config())
    quadrants.unlink()
    monkeypatch.setattr("ugrie.model.zero_shot.answer", None)
    annotated = model_operators.annotator(plan)(model_operators.load(plan, 0))
    assert annotated["quadrant4"].null_count == annotated["sentence"].null_count < len(annotated)
