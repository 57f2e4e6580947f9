"""`ugrie train`: arguments, exit codes, errors found before an image is embedded, and the files written."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_limits

from ugrie import UGRIE
from ugrie.model.checkpoint import find
from ugrie.vision import embeddings

ROOT = Path(__file__).parents[3]
RECIPE = """
name = "mine"
schemes = ["polarity2", "valence"]
epochs = 2
components = 8
hidden = 8
batch_size = 16

[tower]
name = "ViT-L-14-quickgelu"
pretrained = "openai"

[bart]
d_model = 8
layers = 1
heads = 2

[[data]]
path = "mine.npz"
schemes = { polarity2 = { column = "mood" }, valence = { range = [1, 7] } }
"""
PHOTOS = '\n[[data]]\npath = "photos"\nschemes = { polarity2 = { column = "mood" } }\n'


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder: recipe.toml, data/ with embeddings and a photo, and taken/ with a checkpoint of another recipe."""
    draw = np.random.default_rng(0)
    (tmp_path / "data" / "photos" / "images").mkdir(parents=True)
    labels = {"mood": draw.choice(["good", "bad"], 60), "valence": draw.uniform(1, 7, 60)}
    np.savez(tmp_path / "data" / "mine.npz", embedding=draw.normal(size=(60, 768)).astype(np.float16), **labels)
    np.savez(tmp_path / "data" / "small.npz", embedding=np.ones((60, 8)), **labels)
    Image.fromarray(draw.integers(0, 256, (240, 300, 3), dtype=np.uint8)).save(tmp_path / "data" / "photos" / "images" / "0.png")
    (tmp_path / "data" / "photos" / "labels.csv").write_text("image,mood\n0.png,good\n")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    shutil.copytree(find("ugrie-tiny"), tmp_path / "taken")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def one_thread():
    """Sums are then in one order, in this process as in another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture
def refused(command, folder, capsys, monkeypatch):
    """Runs the command with a wrong recipe or arguments and returns its error line. Fails if an image was embedded."""
    monkeypatch.setattr(embeddings.EmbeddingCache, "__call__", lambda *_: pytest.fail("images were embedded"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def run(recipe: str, *tokens: str) -> str:
        (folder / "recipe.toml").write_text(recipe)
        before = set(folder.rglob("*"))
        given = {"--recipe": "recipe.toml", "--data": "data", "--output": "out"} | dict(zip(tokens[::2], tokens[1::2], strict=True))
        assert command.run([word for argument in given.items() for word in argument]) == 2
        assert set(folder.rglob("*")) == before
        output = capsys.readouterr()
        assert output.out == ""
        return output.err.splitlines()[-1]

    return run


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ("--recipe recipe.tml", "there is no recipe at recipe.tml"),
        ("--outputs there", r".*--outputs.*Did you mean --output\?"),
        ("--folds 1", "--folds 1: must be 2 or more, or 0 for none"),
        ("--folds many", ".*--folds.*"),
        ("--output file", "--output file: .*file is no folder that can be written to"),
        ("--output file/below", "--output file/below: .*file is no folder that can be written to"),
        ("--cache file", "--cache file: .*file is no folder that can be written to"),
        ("--output taken", "--output taken: holds a checkpoint that this recipe did not make; name another folder, or remove it"),
        ("--tower-weights clip.safetensors", "--tower-weights clip.safetensors: there is no such file"),
        ("--tower-weights clip.pt", "--tower-weights clip.pt: weights are read as .safetensors only, since other files can hold code"),
        ("--bart facebook/bart-bass", "bart: there is no folder facebook/bart-bass, and no BART of that name could be fetched: .*"),
        ("--bart data", "no BART could be read from the folder data: .*"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_it(refused, tokens, line):
    assert re.fullmatch(f"train: {line}", refused(RECIPE, *tokens.split()))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("epochs", "epoch", r"recipe.toml: epoch: unknown key \(did you mean 'epochs'\?\)"),
        ('"valence"]', '"valance"]', r"no scheme is named 'valance' \(did you mean 'valence'\?\).*"),
        ('"valence"]', '"mine.toml"]', "mine.toml: there is no such scheme file"),
        ('"valence"]', '"valence", "arousal"]', "no data set of the recipe has labels for arousal: add some, or take it from .*"),
        ('"valence"]', '"valence", "valence"]', "two schemes of the template have the name 'valence'"),
        ("quickgelu", "quickgelo", r"tower.name: open_clip has no model '.*' \(did you mean 'ViT-L-14-quickgelu'\?\)"),
        ('"openai"', '"openia"', r"tower.pretrained: open_clip has no weights 'openia' .*\(did you mean 'openai'\?\).*"),
        ("components = 8", "components = 800", "components: 800 are more than the tower's 768 dimensions: lower it"),
        ("heads = 2", "heads = 3", "recipe.toml: bart: a d_model of 8 can't be divided among 3 heads: make it a multiple of heads"),
        ('"mine.npz"', '"mine.nz"', r"there is no data set at data/mine.nz \(did you mean 'mine.npz'\?\)"),
        ('"mine.npz"', '"mine.npz"\nlayout = "oassis"', r"there is no layout 'oassis' \(did you mean 'oasis'\?\).*"),
        ('"mood"', '"moods"', r"data/mine.npz has no column 'moods' \(did you mean 'mood'\?\).*"),
        ("polarity2 = {", "polarity = {", r"data/mine.npz: 'polarity' is not a scheme of the recipe \(did you mean 'polarity2'\?\)"),
        ("[1, 7]", "[1, 2]", "data/mine.npz, column 'valence': a rating of .* is outside its scale .*"),
        ('"mine.npz"', '"small.npz"', "data/small.npz: embeddings of 8 dimensions; the recipe's tower has 768"),
    ],
)
def test_what_is_wrong_with_a_recipe_or_its_data_is_said_before_an_image_is_embedded(refused, old, new, line):
    """Even though the images come before the faulty data set."""
    assert old in RECIPE
    recipe = RECIPE.replace(old, new, 1).replace("\n[[data]]", PHOTOS + "\n[[data]]")
    assert re.fullmatch(f"train: {line}", refused(recipe))


def test_images_whose_tower_has_no_weights_are_said_to_need_them(refused, monkeypatch):
    line = refused(RECIPE + PHOTOS)
    assert line.startswith("train: tower: the weights of ViT-L-14-quickgelu (openai), which embed images, could not be fetched: ")
    assert "--tower-weights" in line


def test_lite2_needs_no_weights_from_a_file(refused):
    recipe = re.sub(r"\[tower\][^[]*", "", RECIPE).replace("epochs", 'tower = "lite2"\nepochs')
    assert refused(recipe, "--tower-weights", "file") == "train: --tower-weights file: lite2 needs none: leave the flag out"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_may_not_be_written_is_named(refused, folder):
    (folder / "locked").mkdir(mode=0o500)
    assert re.fullmatch(
        "train: --output locked/out: .*locked is no folder that can be written to", refused(RECIPE, "--output", "locked/out")
    )


ADAPT = ["--from", "ugrie-l14", "--data", "data/mine.npz", "--output", "adapted"]


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        (ADAPT[2:], "give --recipe RECIPE to train a checkpoint, or --from CHECKPOINT to adapt one"),
        ([*ADAPT, "--recipe", "recipe.toml"], "give --recipe RECIPE to train a checkpoint, or --from CHECKPOINT to adapt one"),
        ([*ADAPT, "--folds", "5"], "--folds is for --recipe: an adaptation is always cross-validated, .*: leave it out"),
        ([*ADAPT, "--bart", "data"], "--bart is for --recipe: .*"),
        (["--from", "ugrie-l41", *ADAPT[2:]], r"there is no model 'ugrie-l41' \(did you mean 'ugrie-l14'\?\).*"),
        ([*ADAPT[:5], "file"], "--output file: .*file is no folder that can be written to"),
        ([*ADAPT[:5], "taken"], "--output taken: holds a checkpoint that was not adapted from ugrie-l14@.*; name another folder, .*"),
        ([*ADAPT, "--schemes", "mine.toml"], "mine.toml: there is no such scheme file"),
        (["--from", "ugrie-tiny", *ADAPT[2:], "--tower-weights", "w"], "--tower-weights w: ugrie-tiny bundles its own tower: .*"),
    ],
)
def test_a_wrong_argument_of_an_adaptation_is_one_line_that_names_it(command, folder, capsys, monkeypatch, tokens, line):
    monkeypatch.setattr(embeddings.EmbeddingCache, "__call__", lambda *_: pytest.fail("images were embedded"))
    before = set(folder.rglob("*"))
    assert command.run(tokens) == 2
    assert re.fullmatch(f"train: {line}", capsys.readouterr().err.splitlines()[-1])
    assert set(folder.rglob("*")) == before


def test_an_adaptation_is_written_or_refused_with_the_exit_code_1(command, folder, capsys):
    """Labels that follow from the images gain, random ones don't."""
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(60, 768)).astype(np.float16)
    np.savez(folder / "random.npz", embedding=vectors, polarity2=draw.choice(["positive", "negative"], 60))
    learnable = np.where(vectors[:, 0] > 0, "positive", "negative")
    np.savez(folder / "learnable.npz", embedding=np.where(vectors[:, :1] > 0, 1, -1) * np.arange(768) + vectors, polarity2=learnable)
    assert command.run(["--from", "ugrie-l14", "--data", "learnable.npz", "--output", "adapted"]) == 0
    assert json.loads(capsys.readouterr().out)["polarity2"]["loss"] > 0
    assert (folder / "adapted/MODEL_CARD.md").is_file()
    with pytest.raises(SystemExit) as left:
        command.run(["--from", "ugrie-l14", "--data", "random.npz", "--output", "refused"])
    assert re.fullmatch("train: random.npz: no scheme of ugrie-l14 gains by these labels, .*", str(left.value.code))
    assert not (folder / "refused").exists()


def test_without_its_packages_it_says_what_to_install(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ugrie.training.run", None)
    assert "pip install 'ugrie[train]'" in refused(RECIPE)


def test_a_training_that_fails_has_the_exit_code_1(command, folder, capsys):
    (folder / "recipe.toml").write_text(RECIPE.replace("epochs = 2", "epochs = 20\nlearning_rate = 1e30"))
    with pytest.raises(SystemExit) as left, pytest.warns(RuntimeWarning):
        command.run(["--recipe", "recipe.toml", "--data", "data", "--output", "out"])
    assert re.fullmatch(r"train: the loss is (nan|inf) in epoch \d+: a lower learning_rate may help", str(left.value.code))
    assert not (folder / "out").exists()


def test_it_prints_what_was_measured_and_writes_the_checkpoint(command, folder, capsys):
    assert command.run(["--recipe", "recipe.toml", "--data", "data", "--output", "deep/out", "--folds", "2"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"polarity2 on mine.npz", "valence on mine.npz"}
    assert json.loads((folder / "deep" / "out" / "training.json").read_text())["cross_validated"] == printed
    assert UGRIE.from_pretrained("deep/out").annotate_embeddings(np.ones((1, 768)))[0]["polarity2"].label in ("negative", "positive")


@pytest.mark.slow
def test_the_command_itself_goes_on_where_it_was_interrupted(command, folder, caplog, one_thread):
    """After Ctrl-C and the same command again, the checkpoint equals that of an uninterrupted run, byte for byte."""
    (folder / "recipe.toml").write_text(RECIPE.replace("epochs = 2", "epochs = 60\npatience = 60"))
    arguments = ["--recipe", "recipe.toml", "--data", "data"]
    words = [sys.executable, str(ROOT / "jobs" / "train.py"), *arguments, "--output", "out", "--cache", "cache"]
    alone = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    first = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | alone)
    states, deadline = [], time.monotonic() + 100
    while not states and first.poll() is None and time.monotonic() < deadline:
        states = list(Path("cache").glob("training/*/final.pt"))
        time.sleep(0.01)
    first.send_signal(signal.SIGINT)
    output = first.communicate(timeout=60)[1]
    assert states, output
    assert first.returncode == 130, output
    assert output.splitlines()[-1] == "train: interrupted: run the same command again to resume"
    assert not Path("out").exists()
    with caplog.at_level(logging.INFO):
        assert command.run([*arguments, "--output", "out", "--cache", "cache"]) == 0
    assert "resuming after epoch" in caplog.text
    assert command.run([*arguments, "--output", "alone", "--cache", "another cache"]) == 0
    names = {file.name for file in Path("alone").iterdir()}
    assert names == {file.name for file in Path("out").iterdir()}
    for name in names:
        assert (Path("out") / name).read_bytes() == (Path("alone") / name).read_bytes(), name
