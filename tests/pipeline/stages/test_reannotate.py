"""Annotating again from embeddings, with a model of the same image tower."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.run import driver, graph
from pipeline.run.plan import prepare
from pipeline.stages import merge
from pipeline.stages.dedup import Deduplicator
from pipeline.stages.reannotate import Reannotator
from pipeline.stages.tracker import BlockTracker
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import read_record
from tests.plugins.operators import one_worker
from ugrie.model import checkpoint


@pytest.fixture(scope="module")
def kept(corpus, model_operators, tmp_path_factory):
    """An output that keeps embeddings."""
    output = tmp_path_factory.mktemp("kept")
    model_operators.commit(prepare(AnnotateConfig(input=str(corpus.folder), output=str(output), run_id="first", keep_embeddings=True)))
    return output


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """ugrie-tiny with other temperatures: the same tower and the same labels, other probabilities."""
    folder = shutil.copytree(checkpoint.find("ugrie-tiny"), tmp_path_factory.mktemp("models") / "newer")
    config = json.loads((folder / "config.json").read_text())
    config |= {"name": "newer", "temperatures": dict.fromkeys(config["temperatures"], 2.0)}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def output(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "output")


def again(output, model, **settings):
    return AnnotateConfig(input=str(output), output=str(output), model=str(model), from_embeddings=True, run_id="again", **settings)


def rows_of(output, record):
    return [row for file in record.files for row in pq.read_table(output / file, partitioning=None).to_pylist()]


def test_the_answers_are_those_that_the_pixels_gave(output, local_ray, rows):
    """With a copy of the model: another version that gives the same labels."""
    same = shutil.copytree(checkpoint.find("ugrie-tiny"), output.parent / "same")
    (same / "config.json").write_text((same / "config.json").read_text() + "\n")
    record = driver.annotate(again(output, same, keep_embeddings=True, block_rows=10))
    first = [row for row in rows_of(output, read_record(OutputFolder(str(output), {}), "runs/first.json")) if row["status"] == "ok"]
    found = rows_of(output, record)
    assert rows.differences(found, first, rows.file_name) == []
    assert [row["embedding"] for row in found] == [row["embedding"] for row in first]
    own = {"model", "run_id", "annotated_at"}
    plain = [name for name, value in first[0].items() if name not in own and not isinstance(value, dict)]
    assert [[row[name] for name in plain] for row in found] == [[row[name] for name in plain] for row in first]
    assert record.model != first[0]["model"]
    assert {row["model"] for row in found} == {record.model}
    assert {row["run_id"] for row in found} == {"again"}
    counts = record.counts.model_dump(include={"listed", "known", "rows", "status"})
    assert counts == {"listed": 34, "known": 0, "rows": 34, "status": {"ok": 34}}
    assert (record.precision, record.timings["all_decode_seconds"]) == (None, 0)
    assert driver.annotate(again(output, same).model_copy(update={"run_id": "third"})).counts.rows == 0


def test_another_version_says_something_else(output, newer):
    plan = prepare(again(output, newer, schemes="valence", block_rows=20))
    reannotator = reannotator_of(plan)
    table = reannotator(pa.table({"block": [1]}))
    assert table.schema.equals(plan.tables.annotated)
    (file,) = output.glob("annotations/*/part-first-*.parquet")
    before = {row["image_id"]: row["valence"] for row in pq.read_table(file, partitioning=None).to_pylist()}
    for row in table.to_pylist():
        assert (row["status"], row["owner"], row["decode_seconds"]) == ("ok", None, 0)
        flatter, sharper = max(row["valence"]["probs"]), max(before[row["image_id"]]["probs"])
        assert flatter < sharper


def reannotator_of(plan):
    _, settings, _ = graph.operators(plan, one_worker(threads=2), BlockTracker(), Deduplicator())
    return Reannotator(settings, OutputFolder(plan.config.input, {}), plan.output, plan.manifest)


def test_a_block_is_as_many_rows_as_a_file_is_read_by_at_once(output, newer):
    assert prepare(again(output, newer)).manifest.block_rows == merge.GROUP_ROWS


def test_a_run_that_goes_on_must_be_asked_for_the_same(output, newer):
    plan = prepare(again(output, newer))
    assert (plan.manifest.rows, plan.manifest.known) == (34, 0)
    with pytest.raises(UserError, match=r"run again was begun with from_embeddings = True"):
        prepare(AnnotateConfig(input=str(output), output=str(output), model=str(newer), run_id="again"))


def test_a_model_of_another_tower_is_refused_before_anything_begins(output, tmp_path, monkeypatch):
    other = checkpoint.find("ugrie-l14")
    (tmp_path / "clip.safetensors").write_bytes(b"weights")
    monkeypatch.setattr("ugrie.vision.download.fetch_weights", lambda tower: str(tmp_path / "clip.safetensors"))
    with pytest.raises(UserError, match=r"holds no embeddings of this model's image tower: its embeddings are of another tower"):
        prepare(again(output, other))
    assert not (output / "_work" / "again").exists()
