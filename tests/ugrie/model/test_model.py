"""The whole model: saving and loading keep it, and an image's annotation doesn't depend on the form in which it is given."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ugrie import UGRIE
from ugrie.libraries import open_clip
from ugrie.model.checkpoint import CheckpointError
from ugrie.model.tokenizer import PADDING, UNKNOWN
from ugrie.schemes.scheme import SchemeError
from ugrie.schemes.template import TemplateError
from ugrie.vision.config import TowerConfig
from ugrie.vision.preprocess import crop


@pytest.fixture(scope="module")
def loaded(saved) -> UGRIE:
    return UGRIE.from_pretrained(saved)


@pytest.fixture(scope="module")
def tiny() -> UGRIE:
    """The bundled checkpoint."""
    return UGRIE.from_pretrained("ugrie-tiny")


@pytest.fixture
def folder(saved, tmp_path):
    """A checkpoint that a test may damage."""
    return shutil.copytree(saved, tmp_path / "mine")


def assert_same(ours, theirs, tolerance=1e-6) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.sentence == b.sentence
        assert list(a.readings) == list(b.readings)
        for name in a.readings:
            assert a[name].probs == pytest.approx(b[name].probs, abs=tolerance)
            assert a[name].value == (None if b[name].value is None else pytest.approx(b[name].value, abs=10 * tolerance))


# Saving and loading


def test_a_saved_model_predicts_the_same_when_loaded(model, loaded, embeddings, image_files):
    assert_same(loaded.annotate_embeddings(embeddings), model.annotate_embeddings(embeddings))
    assert_same(loaded.annotate(image_files), model.annotate(image_files))


def test_saving_what_was_loaded_writes_the_same_weights(saved, loaded, tmp_path):
    loaded.save_pretrained(tmp_path / "again", "# again\n")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "again", saved))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (tmp_path / "again" / "MODEL_CARD.md").read_text() == "# again\n"
    assert (tmp_path / "again" / "config.json").read_bytes() == (saved / "config.json").read_bytes()


def test_a_checkpoint_may_be_read_by_all_who_may_read_its_config(saved):
    assert len({file.stat().st_mode for file in saved.iterdir()}) == 1


def test_tied_weights_are_written_once_under_the_same_name(saved):
    names = list(load_file(saved / "model.safetensors"))
    assert [name for name in names if "embed_tokens" in name or "shared" in name or "lm_head" in name] == ["bart.lm_head.weight"]


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_a_model_keeps_a_tokenizer_of_another_kind(make_model, nested, tokenizers, embeddings, tmp_path, kind):
    model = make_model(nested, tokenizer=tokenizers[kind](nested))
    model.save_pretrained(tmp_path / "mine", "")
    again = UGRIE.from_pretrained(tmp_path / "mine")
    assert_same(again.annotate_embeddings(embeddings), model.annotate_embeddings(embeddings))


def test_a_loaded_tokenizer_knows_its_specials(loaded, model):
    """Without them, training would have no padding, and an unknown label would pass as a word."""
    assert loaded.tokenizer.token_to_id(PADDING) == model.tokenizer.token_to_id(PADDING) == 1
    assert loaded.tokenizer.token_to_id(UNKNOWN) == model.tokenizer.token_to_id(UNKNOWN) == 3
    assert loaded.tokenizer.get_vocab_size() == model.tokenizer.get_vocab_size()


def test_a_label_that_was_put_into_a_config_by_hand_is_refused(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["schemes"][0]["labels"][0]["name"] = "furious"
    path.write_text(json.dumps(config))
    with pytest.raises(TemplateError, match="no token for 'furious'"):
        UGRIE.from_pretrained(folder).annotate_embeddings(np.ones((1, 8)))


def test_a_loaded_model_is_ready_to_predict(loaded):
    assert not any(module.training for module in loaded.modules())


# Broken checkpoints


def test_weights_that_are_cut_short_are_a_checkpoint_error(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit"):
        UGRIE.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64, b"\x80\x04N."], ids=["empty", "text", "ones", "pickle"])
def test_weights_that_are_none_are_a_checkpoint_error(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit"):
        UGRIE.from_pretrained(folder)


@pytest.mark.parametrize("change", ["shape", "missing", "extra"])
def test_weights_of_another_model_are_a_checkpoint_error(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = "mapper.layers.0.weight"
    if change == "shape":
        weights[name] = weights[name][:-1].clone()
    elif change == "missing":
        del weights[name]
    else:
        weights["other.weight"] = torch.zeros(3)
    save_file(weights, path)
    with pytest.raises(CheckpointError, match=r"does not fit its config\.json"):
        UGRIE.from_pretrained(folder)


def test_a_tokenizer_that_is_none_is_a_checkpoint_error(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        UGRIE.from_pretrained(folder)


@pytest.mark.parametrize("change", [{"d_model": 17}, {"d_model": "wide"}, {"activation_function": "none of them"}], ids=str)
def test_a_bart_that_cannot_be_is_a_checkpoint_error(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["bart"] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        UGRIE.from_pretrained(folder)


# Schemes


def test_all_schemes_are_stated_by_default(model, embeddings):
    assert list(model.annotate_embeddings(embeddings)[0].readings) == ["calmness", "liking", "verdict", "moment"]


def test_schemes_are_stated_in_the_order_asked(model, embeddings):
    annotation = model.annotate_embeddings(embeddings, ["moment", "calmness"])[0]
    assert list(annotation.readings) == ["moment", "calmness"]
    assert annotation.sentence.startswith("Overall, this is ")
    assert set(model.config.template(("moment", "calmness")).parse(annotation.sentence)) == {"moment", "calmness"}


@pytest.mark.parametrize("ask", ["annotate", "annotate_embeddings"])
def test_a_scheme_the_model_does_not_know_is_answered_with_those_it_does(model, embeddings, image_files, ask):
    what = image_files if ask == "annotate" else embeddings
    with pytest.raises(SchemeError, match=r"not trained for 'ekman6'; it knows calmness, liking, verdict, moment"):
        getattr(model, ask)(what, ["calmness", "ekman6"])


def test_a_scheme_is_stated_once_and_at_least_one_is(model, embeddings):
    with pytest.raises(TemplateError, match="two schemes"):
        model.annotate_embeddings(embeddings, ["moment", "moment"])
    with pytest.raises(TemplateError, match="at least one"):
        model.annotate_embeddings(embeddings, [])


# Images


def test_paths_pictures_and_arrays_are_read_alike(model, image_files):
    by_path = model.annotate(image_files)
    assert_same(by_path, model.annotate([str(file) for file in image_files]))
    assert_same(by_path, model.annotate([Image.open(file) for file in image_files]))
    assert_same(by_path, model.annotate([np.asarray(Image.open(file)) for file in image_files]))
    assert_same(by_path, model.annotate(file for file in image_files))


def test_a_large_picture_is_as_it_was_when_it_has_been_annotated(model, pixels, tmp_path):
    side = 5 * model.config.tower.crop_size
    Image.fromarray(pixels(side, side)).save(tmp_path / "large.jpg")
    picture = Image.open(tmp_path / "large.jpg")
    model.annotate([picture])
    assert picture.size == (side, side)


def test_a_grey_array_is_read_as_the_grey_picture(model, pixels):
    grey = pixels(40, 30, channels=1)
    assert_same(model.annotate([grey]), model.annotate([np.repeat(grey[..., None], 3, 2)]))


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_the_batch_size_changes_nothing(model, image_files, embeddings, batch_size):
    assert_same(model.annotate(image_files, batch_size=batch_size), model.annotate(image_files), 1e-5)
    assert_same(model.annotate_embeddings(embeddings, batch_size=batch_size), model.annotate_embeddings(embeddings), 1e-5)


def test_images_differ(model, image_files):
    first, second, *_ = model.annotate(image_files)
    assert any(abs(first[name].score - second[name].score) > 1e-3 for name in first.readings)


def test_no_images_are_no_annotations(model):
    assert model.annotate([]) == []
    assert model.annotate_embeddings(np.zeros((0, 8), np.float32)) == []


def test_a_file_that_is_no_image_raises_what_pillow_raises(model, tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("what I saw that day")
    with pytest.raises(OSError, match="cannot identify"):
        model.annotate([path])
    with pytest.raises(FileNotFoundError):
        model.annotate([tmp_path / "gone.jpg"])


# Embeddings


def test_embeddings_of_the_images_are_read_as_the_images(model, image_files):
    crops = np.stack([crop(Image.open(file), 32) for file in image_files])
    with torch.inference_mode():
        embeddings = model.encoder(torch.from_numpy(crops)).numpy()
    assert_same(model.annotate_embeddings(embeddings), model.annotate(image_files), 1e-5)


@pytest.mark.parametrize("shape", [(8,), (2, 7), (2, 3, 8), (0,)])
def test_embeddings_of_another_shape_are_refused_with_the_right_one(model, shape):
    with pytest.raises(ValueError, match=r"embeddings are \[images, 8\] for tiny, not \["):
        model.annotate_embeddings(np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_embeddings_may_be_of_any_precision_and_norm(model, embeddings, dtype):
    assert_same(model.annotate_embeddings((embeddings * 20).astype(dtype)), model.annotate_embeddings(embeddings), 2e-2)


# Probabilities


def test_probabilities_are_probabilities_and_the_label_is_the_likeliest(model, embeddings):
    for annotation in model.annotate_embeddings(embeddings):
        for reading in annotation.readings.values():
            assert sum(reading.probs.values()) == pytest.approx(1, abs=1e-5)
            assert reading.score == max(reading.probs.values())
        assert 1 <= annotation["liking"].value <= 7


def test_a_temperature_calibrates_its_scheme_and_changes_no_label(make_model, nested, embeddings):
    warm, plain = make_model(nested), make_model(nested)
    warm.config = warm.config.model_copy(update={"temperatures": {"calmness": 2.0}})
    plain.config = plain.config.model_copy(update={"temperatures": {}})
    ours, theirs = (model.predict(torch.from_numpy(embeddings)) for model in (warm, plain))
    expected = np.sqrt(theirs.probs["calmness"])
    np.testing.assert_allclose(ours.probs["calmness"], expected / expected.sum(1, keepdims=True), atol=1e-5)
    assert np.abs(ours.probs["calmness"] - theirs.probs["calmness"]).max() > 0.01
    np.testing.assert_allclose(ours.probs["liking"], theirs.probs["liking"], atol=1e-6)
    assert ours.sentences() == theirs.sentences()


# Towers known by name


@pytest.fixture(scope="module")
def named(make_model, nested, tmp_path_factory):
    """The folder of a checkpoint whose tower is known by name: a tiny one, registered in open_clip."""
    config = tmp_path_factory.mktemp("tower") / "ugrie-model-test-tower.json"
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    text = {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    config.write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(config)
    tower = TowerConfig(
        embedding_dim=8, crop_size=32, mean=(0.5,) * 3, deviation=(0.5,) * 3, name="ugrie-model-test-tower", pretrained="nowhere"
    )
    folder = tmp_path_factory.mktemp("named") / "mine"
    make_model(nested, tower).save_pretrained(folder, "")
    return folder


def test_embeddings_are_annotated_without_the_towers_weights(named, embeddings):
    assert len(UGRIE.from_pretrained(named).annotate_embeddings(embeddings)) == len(embeddings)


def test_pixels_without_the_towers_weights_say_what_to_do(named, image_files, tmp_path):
    with pytest.raises(OSError, match=r"ugrie-model-test-tower \(nowhere\) could not be fetched[\s\S]*--tower-weights"):
        UGRIE.from_pretrained(named).annotate(image_files)
    with pytest.raises(FileNotFoundError, match=r"no file of CLIP weights at .*clip\.pt"):
        UGRIE.from_pretrained(named, tower_weights=str(tmp_path / "clip.pt")).annotate(image_files)


def test_pixels_are_annotated_with_the_towers_weights_which_stay_out_of_the_checkpoint(named, image_files, tmp_path):
    torch.manual_seed(3)
    clip = open_clip.create_model("ugrie-model-test-tower").eval()
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    model = UGRIE.from_pretrained(named, tower_weights=str(tmp_path / "clip.pt"))
    annotations = model.annotate(image_files)
    crops = torch.from_numpy(np.stack([crop(Image.open(file), 32) for file in image_files])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        embeddings = clip.visual((crops / 255 - 0.5) / 0.5).numpy()
    assert_same(annotations, model.annotate_embeddings(embeddings), 1e-4)

    model.save_pretrained(tmp_path / "again", "")
    assert not [name for name in load_file(tmp_path / "again" / "model.safetensors") if name.startswith("encoder")]
    assert_same(model.annotate(image_files), annotations)


# The bundled checkpoint


def test_the_bundled_model_annotates_a_picture(tiny):
    height, width = np.mgrid[0:200, 0:300]
    picture = np.stack([height % 256, width % 256, (height + width) % 256], -1).astype(np.uint8)
    (annotation,) = tiny.annotate([picture])
    assert tiny.config.template().parse(annotation.sentence) == {name: reading.label for name, reading in annotation.readings.items()}
    assert set(annotation.readings) >= {"polarity2", "valence", "arousal"}
    assert 1 <= annotation["valence"].value <= 9
    assert_same(tiny.annotate([picture], ["valence"]), tiny.annotate([picture], ["valence"]))


def test_the_bundled_model_refuses_what_it_was_not_trained_for(tiny):
    with pytest.raises(
        SchemeError, match=r"ugrie-tiny was not trained for 'ekman6'; it knows polarity3, polarity2, mikels8, valence, arousal"
    ):
        tiny.annotate([np.zeros((8, 8, 3), np.uint8)], ["ekman6"])


def test_the_bundled_model_finds_pleasant_photos_pleasant(tiny, shared):
    import csv

    with (shared / "oasis" / "labels.csv").open(newline="") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: float(row["valence"]))
    files = [shared / "oasis" / "images" / row["image"] for row in (*rows[:12], *rows[-12:])]
    values = [annotation["valence"].value for annotation in tiny.annotate(files, ["valence"])]
    assert np.mean(values[12:]) > np.mean(values[:12]) + 1
