"""`ugrie train --from`: what gains is kept and stated, what doesn't is left alone, and wrong arguments are named."""

import csv
import json
import logging

import numpy as np
import pytest
from PIL import Image

from ugrie import UGRIE
from ugrie.adapting import adapt
from ugrie.adapting.adapt import NoGainError, adapt_checkpoint
from ugrie.data.table import DataError
from ugrie.evaluation.evaluate import evaluate_model
from ugrie.model.checkpoint import digest, read_config
from ugrie.schemes.scheme import load_scheme
from ugrie.schemes.template import TemplateError

POLARITY, VALENCE = load_scheme("polarity2"), load_scheme("valence")


@pytest.fixture(scope="module")
def base(make_model, tmp_path_factory):
    """The folder of a tiny checkpoint of polarity2 and valence, whose components follow the first coordinates of `embeddings`."""
    import torch

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    model = make_model([POLARITY, VALENCE])
    model.mapper.fit_projection(torch.from_numpy(embeddings(500, 9)))
    model.mapper.landmarks.copy_(model.mapper.components(torch.from_numpy(embeddings(6, 8))))
    model.save_pretrained(folder, "# tiny\n")
    return folder


def embeddings(count: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 8)) * [3, 2, 1, 1, 0.1, 0.1, 0.1, 0.1]).astype(np.float32)


def write(path, count=60, seed=0, **columns):
    """Write an .npz of embeddings whose polarity2 is their first coordinate's sign; `columns` replace it."""
    vectors = embeddings(count, seed)
    columns = columns or {"polarity2": np.where(vectors[:, 0] > 0, "positive", "negative")}
    np.savez(path, embedding=vectors, **columns)
    return path


def test_labels_that_gain_make_a_checkpoint_that_answers_new_images_better(base, tmp_path):
    gains = adapt_checkpoint(str(base), write(tmp_path / "mine.npz"), tmp_path / "mine", tmp_path / "cache")
    assert gains["polarity2"].images == 60
    assert gains["polarity2"].interval[0] > 0
    assert gains["polarity2"].after["accuracy"] > gains["polarity2"].before["accuracy"]
    new = write(tmp_path / "new.npz", 200, 1)
    before, after = (evaluate_model(str(folder), new, {}).record["schemes"]["polarity2"] for folder in (base, tmp_path / "mine"))
    assert after["accuracy"] > before["accuracy"] + 0.1
    assert after["nll"] < before["nll"] - 0.1
    assert abs(gains["polarity2"].after["accuracy"] - after["accuracy"]) < 0.15  # the folds say what new images say
    config = read_config(tmp_path / "mine")
    assert config.name == "mine"
    assert config.adaptation.base == f"tiny@{digest(base)}"


def test_the_card_and_the_record_state_the_gain(base, tmp_path):
    gains = adapt_checkpoint(str(base), write(tmp_path / "mine.npz"), tmp_path / "mine", tmp_path / "cache")
    gain = gains["polarity2"]
    card = (tmp_path / "mine/MODEL_CARD.md").read_text()
    assert f"`tiny@{digest(base)}`, adapted by `ugrie train --from` to 60 labelled images from `mine.npz`" in card
    assert (
        f"| polarity2 | 60 | accuracy {gain.before['accuracy']:.1%} to {gain.after['accuracy']:.1%}, cross-entropy {-gain.loss:+.3f}"
        in card
    )
    record = json.loads((tmp_path / "mine/training.json").read_text())
    assert record["gains"]["polarity2"]["loss"] == gain.loss


def test_a_scheme_that_gains_nothing_is_left_as_it_is(base, tmp_path, caplog):
    """Ratings that have nothing to do with the images, beside labels that have."""
    caplog.set_level(logging.INFO)
    vectors = embeddings(60)
    ratings = UGRIE.from_pretrained(base).annotate_embeddings(vectors)
    noisy = [reading["valence"].value for reading in ratings]  # the checkpoint's own answers can't be bettered
    data = write(tmp_path / "mine.npz", polarity2=np.where(vectors[:, 0] > 0, "positive", "negative"), valence=np.array(noisy))
    gains = adapt_checkpoint(str(base), data, tmp_path / "mine", tmp_path / "cache")
    kept = read_config(tmp_path / "mine").adaptation.schemes
    assert kept == tuple(name for name, gain in gains.items() if gain.loss > 0)
    assert "polarity2" in kept
    for name in gains.keys() - set(kept):
        assert f"{name}, 60 images: left as it is" in caplog.text


def test_labels_without_a_gain_write_nothing(base, tmp_path):
    rng = np.random.default_rng(1)
    wrong = UGRIE.from_pretrained(base).annotate_embeddings(embeddings(60))
    labels = np.array([reading["polarity2"].label for reading in wrong])
    labels = np.where(rng.random(60) < 0.02, "positive", labels)
    with pytest.raises(NoGainError, match=r"mine.npz: no scheme of tiny gains by these labels, and nothing is written: label more"):
        # A checkpoint that is right of nearly all its own answers, and surer than the labels can make it
        adapt_checkpoint(str(sure(base, tmp_path)), write(tmp_path / "mine.npz", polarity2=labels), tmp_path / "mine", tmp_path / "cache")
    assert not (tmp_path / "mine").exists()


def sure(base, tmp_path):
    """Return a copy of the checkpoint whose probabilities are near zero and one."""
    model = UGRIE.from_pretrained(base)
    model.config = model.config.model_copy(update={"temperatures": {"polarity2": 0.01, "valence": 1.0}})
    model.save_pretrained(tmp_path / "sure", "# sure\n")
    return tmp_path / "sure"


def test_a_scheme_that_the_checkpoint_did_not_know_is_learnt_from_the_labels(base, tmp_path):
    vectors = embeddings(80)
    data = write(tmp_path / "mine.npz", 80, ekman6=np.where(vectors[:, 0] > 0, "joy", "fear"))
    gains = adapt_checkpoint(str(base), data, tmp_path / "mine", tmp_path / "cache")
    assert gains["ekman6"].before["accuracy"] < 0.65  # of the more frequent label
    assert gains["ekman6"].after["accuracy"] > 0.8
    assert read_config(tmp_path / "mine").few_shot == ("ekman6",)
    assert "| ekman6 (new) | 80 |" in (tmp_path / "mine/MODEL_CARD.md").read_text()


def test_a_scheme_of_ones_own_is_given_by_its_file(base, tmp_path):
    scheme = tmp_path / "weather.toml"
    scheme.write_text(
        'name = "weather"\ntitle = "Weather"\nkind = "categorical"\nclause = "the weather is"\nsource = "a test"\n'
        '[[labels]]\nname = "fair"\n[[labels]]\nname = "foul"\n'
    )
    data = write(tmp_path / "mine.npz", weather=np.where(embeddings(60)[:, 0] > 0, "fair", "foul"))
    gains = adapt_checkpoint(str(base), data, tmp_path / "mine", tmp_path / "cache", [str(scheme)])
    assert list(gains) == ["weather"]
    other = write(tmp_path / "other.npz")
    with pytest.raises(DataError, match=r"other.npz has no labels for weather, which --schemes names"):
        adapt_checkpoint(str(base), other, tmp_path / "more", tmp_path / "cache", [str(scheme)])


def test_a_scheme_whose_clause_is_anothers_is_refused(base, tmp_path):
    scheme = tmp_path / "mine.toml"
    scheme.write_text(
        f'name = "mine"\ntitle = "Mine"\nkind = "categorical"\nclause = "{POLARITY.clause}"\nsource = "a test"\n'
        '[[labels]]\nname = "fair"\n[[labels]]\nname = "foul"\n'
    )
    data = write(tmp_path / "mine.npz", mine=np.where(embeddings(60)[:, 0] > 0, "fair", "foul"))
    with pytest.raises(TemplateError, match="two schemes of the template have the clause"):
        adapt_checkpoint(str(base), data, tmp_path / "mine", tmp_path / "cache", [str(scheme)])


def test_the_same_call_does_nothing_once_it_is_done_and_other_labels_replace_the_checkpoint(base, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first = adapt_checkpoint(str(base), write(tmp_path / "mine.npz"), tmp_path / "mine", tmp_path / "cache")
    before = digest(tmp_path / "mine")
    again = adapt_checkpoint(str(base), tmp_path / "mine.npz", tmp_path / "mine", tmp_path / "cache")
    assert "already adapted with these labels: nothing to do" in caplog.text
    assert again["polarity2"].loss == first["polarity2"].loss
    adapt_checkpoint(str(base), write(tmp_path / "mine.npz", 70, 3), tmp_path / "mine", tmp_path / "cache")
    assert digest(tmp_path / "mine") != before


def test_a_checkpoint_of_something_else_is_not_overwritten(base, tmp_path):
    with pytest.raises(DataError, match=r"--output .*tiny: holds a checkpoint that was not adapted from tiny@.*; name another folder"):
        adapt_checkpoint(str(base), write(tmp_path / "mine.npz"), base, tmp_path / "cache")


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_of_an_image_are_in_one_fold(base, tmp_path, copies):
    """Labels drawn at random can't be learnt, also where each image is there three times."""
    vectors = np.tile(embeddings(40, 2), (copies, 1))
    labels = np.tile(np.random.default_rng(5).choice(["positive", "negative"], 40), copies)
    np.savez(tmp_path / "mine.npz", embedding=vectors, polarity2=labels)
    try:
        gain = adapt_checkpoint(str(base), tmp_path / "mine.npz", tmp_path / "mine", tmp_path / "cache")["polarity2"]
    except NoGainError:
        return
    assert gain.after["accuracy"] < 0.75


def test_too_few_and_too_many_labels_are_named(base, tmp_path, monkeypatch, caplog):
    data = write(tmp_path / "few.npz", 9)
    with pytest.raises(DataError, match="polarity2 has 9 labelled images: 10 of a scheme are the least to learn from"):
        adapt_checkpoint(str(base), data, tmp_path / "mine", tmp_path / "cache")
    monkeypatch.setattr(adapt, "MOST", 50)
    with pytest.raises(DataError, match="has 60 labelled images: train on more than 50 by a recipe"):
        adapt_checkpoint(str(base), write(tmp_path / "many.npz"), tmp_path / "mine", tmp_path / "cache")


def test_a_folder_of_images_is_embedded_and_broken_ones_are_left_out(base, tmp_path, image_files, caplog):
    (tmp_path / "review/images").mkdir(parents=True)
    rows = []
    for i in range(12):
        pixels = np.full((40, 40, 3), 20 * i, np.uint8)
        pixels[i : i + 8] = 255 - 20 * i
        Image.fromarray(pixels).save(tmp_path / f"review/images/{i}.png")
        rows.append({"image": f"{i}.png", "mikels8": ("awe", "fear")[i % 2], "polarity2": ""})
    (tmp_path / "review/images/0.png").write_bytes(b"no image")
    with open(tmp_path / "review/labels.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    try:
        gains = adapt_checkpoint(str(base), tmp_path / "review", tmp_path / "mine", tmp_path / "cache")
        assert gains["mikels8"].images == 11
    except NoGainError:
        pass
    assert "0.png" in caplog.text
    assert list((tmp_path / "cache").glob("*.npz"))
