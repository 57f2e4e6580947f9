"""The evaluation of a checkpoint: the record, its table, and images that can't be read."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ugrie import UGRIE
from ugrie.data.table import DataError
from ugrie.evaluation import metrics
from ugrie.evaluation.evaluate import Evaluation, evaluate_model, predict
from ugrie.libraries import open_clip
from ugrie.model.checkpoint import CheckpointError, digest
from ugrie.schemes.scheme import load_scheme

DIM = 8  # of the tiny models' towers
NAMES = ("polarity2", "mikels8", "valence")


@pytest.fixture(scope="module")
def checkpoint(make_model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_model([load_scheme(name) for name in NAMES]).save_pretrained(folder, "# tiny\n")
    return folder


@pytest.fixture(scope="module")
def model(checkpoint) -> UGRIE:
    return UGRIE.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def npz(tmp_path_factory) -> Path:
    """Forty embeddings; three in four have an emotion, all a rating."""
    draw = np.random.default_rng(0)
    emotions = draw.choice(load_scheme("mikels8").label_names, 40)
    emotions[::4] = ""
    path = tmp_path_factory.mktemp("data") / "embeddings.npz"
    np.savez(path, embedding=draw.normal(size=(40, DIM)), valence=draw.uniform(1, 9, 40), mikels8=emotions)
    return path


@pytest.fixture(scope="module")
def evaluation(checkpoint, npz) -> Evaluation:
    return evaluate_model(str(checkpoint), npz, {})


@pytest.fixture
def folder(image_files, tmp_path) -> Path:
    """Five images, and one that is cut off."""
    (tmp_path / "images").mkdir()
    for file in image_files:
        (tmp_path / "images" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "images" / "cut.png").write_bytes(image_files[0].read_bytes()[:200])
    rows = [[file.name, "positive"] for file in image_files]
    with (tmp_path / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows([["image", "polarity2"], *rows[:2], ["cut.png", "negative"], *rows[2:]])
    return tmp_path


def test_the_record_is_what_the_measures_say_of_the_models_prediction(evaluation, checkpoint, model, npz):
    record = evaluation.record
    assert record["model"] == f"tiny@{digest(checkpoint)}"
    assert (record["data"], record["n"], record["without_labels"], record["broken"]) == (str(npz), 40, 0, {})
    assert list(record["schemes"]) == ["mikels8", "valence"]
    with np.load(npz) as arrays:
        embeddings, emotions = arrays["embedding"].astype(np.float32), arrays["mikels8"]
    prediction = model.predict(torch.from_numpy(embeddings))
    rows = emotions != ""
    scheme = load_scheme("mikels8")
    targets = np.eye(8)[[scheme.label_index(word) for word in emotions[rows]]]
    given = targets, prediction.probs["mikels8"][rows], prediction.choices["mikels8"][rows]
    measured = record["schemes"]["mikels8"]
    assert {name: measured[name] for name in metrics.scheme_metrics(scheme, *given)} == pytest.approx(
        metrics.scheme_metrics(scheme, *given)
    )
    assert measured["n"] == 30
    assert measured["interval"]["accuracy"] == pytest.approx(metrics.confidence_intervals(scheme, *given)["accuracy"])
    assert measured["labels"] == scheme.label_names
    assert np.array(measured["confusion"]).sum() == 30
    assert record["schemes"]["valence"]["n"] == 40


def test_contradictions_are_those_of_the_whole_sentence(evaluation, model, npz):
    with np.load(npz) as arrays:
        sentence = predict(model, arrays["embedding"].astype(np.float32))
    assert evaluation.record["consistency"] == metrics.contradictions(sentence)
    assert {"polarity2 and mikels8", "any"} < set(evaluation.record["consistency"])


def test_a_schemes_measures_do_not_depend_on_the_labels_of_others(evaluation, checkpoint, npz, tmp_path):
    with np.load(npz) as arrays:
        np.savez(tmp_path / "valence.npz", embedding=arrays["embedding"], valence=arrays["valence"])
    alone = evaluate_model(str(checkpoint), tmp_path / "valence.npz", {})
    assert list(alone.record["schemes"]) == ["valence"]
    assert alone.record["schemes"]["valence"] == evaluation.record["schemes"]["valence"]
    assert alone.record["consistency"] == evaluation.record["consistency"]


def test_the_record_is_json(evaluation):
    record = json.loads(json.dumps(evaluation.record, allow_nan=False))
    assert record["schemes"]["valence"]["interval"]["pearson_r"][0] <= record["schemes"]["valence"]["pearson_r"]


def test_batches_make_no_difference(model):
    embeddings = np.random.default_rng(1).normal(size=(7, DIM)).astype(np.float32)
    whole, parts = predict(model, embeddings), predict(model, embeddings, batch_size=3)
    for name in NAMES:
        assert parts.probs[name] == pytest.approx(whole.probs[name], abs=1e-5)
        assert (parts.choices[name] == whole.choices[name]).all()


def test_schemes_are_predicted_in_the_order_asked(model):
    embeddings = np.random.default_rng(1).normal(size=(3, DIM)).astype(np.float32)
    asked = predict(model, embeddings, ["valence", "mikels8"])
    assert asked.sentences() == model.predict(torch.from_numpy(embeddings), ["valence", "mikels8"]).sentences()


def test_the_table_states_every_measure_within_a_hundred_columns(evaluation):
    lines = evaluation.table().splitlines()
    assert lines[0] == f"{evaluation.record['model']} on {evaluation.record['data']}"
    assert lines[1] == "40 images"
    assert max(map(len, lines[1:])) <= 100
    text = "\n".join(lines)
    for measured in evaluation.record["schemes"].values():
        for name, (low, high) in measured["interval"].items():
            assert f"{measured[name]:.3f}   {low:.3f} to {high:.3f}" in text, name
    for found in evaluation.record["consistency"].values():
        assert f"{found['share']:.2%}" in text


def test_an_image_that_cant_be_read_is_named_and_left_out(checkpoint, folder, image_files, model, caplog):
    evaluation = evaluate_model(str(checkpoint), folder, {})
    ((name, reason),) = evaluation.record["broken"].items()
    assert name == "cut.png"
    assert reason.startswith("OSError: ")
    assert evaluation.record["n"] == evaluation.record["schemes"]["polarity2"]["n"] == 5
    assert "5 images (left out: 1 that can't be read)" in evaluation.table()
    assert f"left out, as it can't be read: cut.png ({reason})" in caplog.messages
    expected = [annotation["polarity2"].score for annotation in model.annotate(image_files)]
    prediction = evaluation.prediction
    assert prediction.probs["polarity2"][np.arange(5), prediction.choices["polarity2"]] == pytest.approx(expected, abs=1e-5)


def test_a_folder_of_nothing_but_broken_images_is_refused(checkpoint, folder):
    for file in (folder / "images").iterdir():
        file.write_bytes(b"none")
    with pytest.raises(DataError, match=r"none of the 6 images can be read; 0\.png: no image of a format that Pillow reads"):
        evaluate_model(str(checkpoint), folder, {})


@pytest.fixture
def named(make_model, tower, tmp_path) -> Path:
    """A checkpoint that does not bundle its tower, which open_clip knows by name."""
    shape = {"vision_cfg": tower.vision_cfg, "text_cfg": {"width": 64, "heads": 1, "layers": 1, "vocab_size": 2, "context_length": 1}}
    (tmp_path / "ugrie-evaluation-test-tower.json").write_text(json.dumps({"embed_dim": DIM, **shape}))
    open_clip.add_model_config(tmp_path / "ugrie-evaluation-test-tower.json")
    stated = tower.model_copy(update={"vision_cfg": None, "name": "ugrie-evaluation-test-tower", "pretrained": "nowhere"})
    make_model([load_scheme(name) for name in NAMES], stated).save_pretrained(tmp_path / "named", "# named\n")
    return tmp_path / "named"


def test_embeddings_are_measured_without_the_towers_weights_and_images_are_not(named, folder, npz, monkeypatch):
    assert evaluate_model(str(named), npz, {}).record["n"] == 40
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was read before it was known that it can't be embedded"))
    with pytest.raises(CheckpointError, match=r"embeddings as \.npz need no tower.*ugrie-evaluation-test-tower[\s\S]*--tower-weights"):
        evaluate_model(str(named), folder, {})
    (folder / "clip.pt").write_bytes(b"none")
    with pytest.raises(CheckpointError, match=r"clip\.pt does not hold the weights of ugrie-evaluation-test-tower"):
        evaluate_model(str(named), folder, {}, folder / "clip.pt")


def test_images_are_measured_with_the_towers_weights(named, folder, image_files):
    weights = folder / "clip.pt"
    torch.save(open_clip.create_model("ugrie-evaluation-test-tower").state_dict(), weights)
    evaluation = evaluate_model(str(named), folder, {}, weights)
    expected = [
        annotation["valence"].value for annotation in UGRIE.from_pretrained(named, tower_weights=str(weights)).annotate(image_files)
    ]
    assert evaluation.prediction.values(load_scheme("valence")) == pytest.approx(expected, abs=1e-4)


def test_weights_for_a_tower_that_is_bundled_are_refused(checkpoint, folder):
    with pytest.raises(CheckpointError, match=r"--tower-weights .*labels\.csv: tiny bundles its own tower"):
        evaluate_model(str(checkpoint), folder, {}, folder / "labels.csv")


def test_labels_are_refused_before_the_model_is_loaded(checkpoint, npz, monkeypatch):
    monkeypatch.setattr(UGRIE, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(DataError, match="valence"):
        evaluate_model(str(checkpoint), npz, {"valence": (2, 3)})
    with pytest.raises(CheckpointError, match="gone"):
        evaluate_model("gone", npz, {})


def test_images_come_as_files_or_bytes_of_any_kind_that_pillow_reads(checkpoint, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("P", (40, 30)).save(tmp_path / "images" / "a.gif")
    Image.new("RGBA", (33, 70)).save(tmp_path / "images" / "b.webp")
    (tmp_path / "labels.csv").write_text("image,valence\na.gif,3\nb.webp,4\n")
    contents = [(tmp_path / "images" / name).read_bytes() for name in ("a.gif", "b.webp")]
    pq.write_table(pa.table({"image": [*contents, b"none"], "valence": [3.0, 4.0, 5.0]}), tmp_path / "images.parquet")
    files, stored = (evaluate_model(str(checkpoint), path, {}).record for path in (tmp_path, tmp_path / "images.parquet"))
    assert files["n"] == 2
    assert stored["schemes"] == files["schemes"]
    assert stored["broken"] == {"images.parquet, row 2": "no image of a format that Pillow reads"}
