"""`ugrie evaluate`: arguments, exit codes, the table, JSON and plots."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ugrie.model.checkpoint import digest, find, read_config
from ugrie.model.model import UGRIE

ROOT = Path(__file__).parents[3]
TINY = find("ugrie-tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with embeddings.npz for ugrie-tiny, small.npz for no tower, and photos with their labels."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    size = read_config(TINY).tower.embedding_dim
    labels = {"polarity2": draw.choice(["negative", "positive"], 20), "valence": draw.uniform(1, 7, 20), "id": np.arange(20)}
    np.savez(folder / "embeddings.npz", embedding=draw.normal(size=(20, size)).astype(np.float16), **labels)
    np.savez(folder / "small.npz", embedding=np.ones((20, 8)), **labels)
    np.savez(folder / "wrong.npz", embedding=np.ones((2, size)), polarity2=["positive", "postive"])
    np.savez(folder / "other.npz", embedding=np.ones((2, size)), ekman6=["joy", "fear"])
    (folder / "photos" / "images").mkdir(parents=True)
    for i in range(2):
        Image.fromarray(draw.integers(0, 256, (240, 300, 3), dtype=np.uint8)).save(folder / "photos" / "images" / f"{i}.png")
    (folder / "photos" / "images" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "photos" / "labels.csv").write_text("image,polarity3,mood\n0.png,neutral,x\ncut.png,negative,x\n1.png,,x\n")
    return folder


@pytest.fixture
def refused(command, data, capsys, monkeypatch):
    """Runs the command with wrong arguments and returns its error line. Fails if the model was loaded."""
    monkeypatch.chdir(data)
    monkeypatch.setattr(UGRIE, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))

    def run(*tokens: str) -> str:
        before = set(data.rglob("*"))
        assert command.run(list(tokens)) == 2
        assert set(data.rglob("*")) == before
        output = capsys.readouterr()
        assert output.out == ""
        (line,) = output.err.splitlines()
        return line

    return run


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ("--data embeddings.npz", ".*--model.*"),
        ("--model ugrie-tiny", ".*--data.*"),
        ("--model ugrie-tiny --data embeddings.npz --jsn out.json", r".*--jsn.*Did you mean --json\?"),
        ("--model ugrie-tny --data embeddings.npz", r"there is no model 'ugrie-tny' \(did you mean 'ugrie-tiny'\?\).*"),
        ("--model ugrie-tiny --data embedding.npz", r".*embedding.npz.*embeddings.npz.*"),
        ("--model ugrie-tiny --data small.npz", "small.npz: embeddings of 8 dimensions; ugrie-tiny reads 1120, of its own tower"),
        (
            "--model ugrie-tiny --data wrong.npz",
            r"wrong.npz, column 'polarity2': 'postive' is not a label of polarity2 \(did you mean 'positive'\?\).*",
        ),
        ("--model ugrie-tiny --data other.npz", "other.npz has no labels for ugrie-tiny, which knows polarity3, .*; it has ekman6"),
        (
            "--model ugrie-tiny --data embeddings.npz --range valence",
            "--range valence: must be a scheme and the two ends of its scale, such as .*",
        ),
        ("--model ugrie-tiny --data embeddings.npz --range valence=1,x", "--range valence=1,x: must be .*"),
        (
            "--model ugrie-tiny --data embeddings.npz --range valence=7,1",
            "--range valence=7,1: the first number must be the lower one: swap them",
        ),
        ("--model ugrie-tiny --data embeddings.npz --range valence=1,3", "embeddings.npz, column 'valence': .* outside its scale .*"),
        ("--model ugrie-tiny --data embeddings.npz --range valnce=1,7", r"--range valnce: .*\(did you mean 'valence'\?\).*"),
        (
            "--model ugrie-tiny --data embeddings.npz --range valence=1,7 --range valence=1,9",
            "--range valence is given twice: leave one out",
        ),
        ("--model ugrie-tiny --data embeddings.npz --tower-weights clip.pt", "--tower-weights clip.pt: there is no such file"),
        (
            "--model ugrie-tiny --data photos --tower-weights small.npz",
            "--tower-weights small.npz: ugrie-tiny bundles its own tower: leave the flag out",
        ),
        ("--model ugrie-tiny --data embeddings.npz --json gone/out.json", "--json gone/out.json: must be a file in an existing folder"),
        ("--model ugrie-tiny --data embeddings.npz --json photos", "--json photos: must be a file .*"),
        ("--model ugrie-tiny --data embeddings.npz --plot out.jpeg2", "--plot out.jpeg2: must end with .png, .svg or .pdf"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(refused, tokens, line):
    assert re.fullmatch(f"evaluate: {line}", refused(*tokens.split()))


def test_it_prints_the_table_and_writes_what_is_asked_for(command, data, tmp_path, capsys):
    tokens = ["--model", "ugrie-tiny", "--data", str(data / "embeddings.npz"), "--range", "valence=1,7"]
    assert command.run([*tokens, "--json", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["model"] == f"ugrie-tiny@{digest(TINY)}"
    assert (record["n"], list(record["schemes"])) == (20, ["polarity2", "valence"])
    for scheme, measured in record["schemes"].items():
        assert scheme in printed
        for name, (low, high) in measured["interval"].items():
            assert f"{measured[name]:.3f}   {low:.3f} to {high:.3f}" in printed
    with Image.open(tmp_path / "out.png") as image:
        assert image.format == "PNG"


def test_a_scale_is_one_that_ratings_are_read_on(command, data, tmp_path):
    found = []
    for tokens in ([], ["--range", "valence=1,7"]):
        file = tmp_path / "out.json"
        assert command.run(["--model", str(TINY), "--data", str(data / "embeddings.npz"), "--json", str(file), *tokens]) == 0
        found.append(json.loads(file.read_text())["schemes"]["valence"])
    assert found[0]["pearson_r"] == pytest.approx(found[1]["pearson_r"])
    assert found[1]["mae_of_constant"] == pytest.approx(found[0]["mae_of_constant"] * 8 / 6)


def test_it_measures_a_folder_of_images(command, data, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    assert command.run(["--model", "ugrie-tiny", "--data", str(data / "photos"), "--json", str(tmp_path / "out.json")]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "1 image (left out: 1 that can't be read, 1 without a label)"
    assert "ignored, as they hold no labels for ugrie-tiny: mood" in caplog.messages
    assert "left out, as it can't be read: cut.png (no image of a format that Pillow reads)" in caplog.messages
    record = json.loads((tmp_path / "out.json").read_text())
    assert (list(record["broken"]), record["without_labels"], record["schemes"]["polarity3"]["n"]) == (["cut.png"], 1, 1)


def test_the_command_itself_ends_with_the_exit_code():
    done = subprocess.run([sys.executable, str(ROOT / "jobs" / "evaluate.py"), "--modl", "x"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert re.fullmatch(r"evaluate: .*--modl.*\n", done.stderr)


def test_without_its_packages_it_says_what_to_install(command, data, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ugrie.evaluation.plot", None)
    assert "pip install 'ugrie[train]'" in refused("--model", "ugrie-tiny", "--data", "embeddings.npz")
