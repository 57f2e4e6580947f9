"""Labels are read for the checkpoint's schemes, and errors in them are found before any image is decoded."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ugrie.data.table import DataError
from ugrie.evaluation.labelled_set import read_labelled_set
from ugrie.model.checkpoint import Config
from ugrie.schemes.scheme import load_scheme

DIM = 8  # of the tiny models' towers


@pytest.fixture(scope="module")
def config(make_model) -> Config:
    return make_model([load_scheme(name) for name in ("polarity2", "ekman6", "valence")]).config


@pytest.fixture
def folder(tmp_path):
    """Writes a folder of images and labels.csv: `folder(image=[…], ekman6=[…])`."""

    def write(**columns: list[str]) -> Path:
        (tmp_path / "images").mkdir(exist_ok=True)
        for name in columns.get("image", []):
            Image.new("RGB", (4, 4)).save(tmp_path / "images" / name)
        with (tmp_path / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
        return tmp_path

    return write


@pytest.fixture
def npz(tmp_path):
    """Writes an .npz of embeddings of the tower's size, unless others are given."""

    def write(count: int = 3, **arrays: np.ndarray | list) -> Path:
        path = tmp_path / "data.npz"
        np.savez(path, **{"embedding": np.ones((count, DIM), np.float16), **arrays})
        return path

    return write


def test_a_folder_gives_files_and_labels_in_the_checkpoints_order(config, folder):
    path = folder(valence=["5", "", "7.5"], theme=["a", "b", "c"], image=["x.png", "y.png", "z.png"], ekman6=["Joy", "happy", "fear"])
    labels = read_labelled_set(path, config, {})
    assert list(labels.targets) == ["ekman6", "valence"]
    assert list(labels.table.images) == [path / "images" / f"{name}.png" for name in "xyz"]
    assert labels.targets["ekman6"].argmax(1).tolist() == [3, 3, 2]
    assert labels.targets["valence"] @ np.arange(1, 10) == pytest.approx([5, 0, 7.5])
    assert labels.without_labels == 0


def test_an_npz_gives_embeddings_of_any_norm(config, npz):
    embedding = np.random.default_rng(0).normal(0, 20, (3, DIM)).astype(np.float16)
    labels = read_labelled_set(
        npz(embedding=embedding, ekman6=["joy", "fear", "anger"], valence=[1.0, np.nan, 9.0], id=[7, 8, 9]), config, {}
    )
    assert labels.table.images.dtype == np.float32
    assert (labels.table.images == embedding).all()
    assert labels.targets["valence"] @ np.arange(1, 10) == pytest.approx([1, 0, 9])


def test_columns_of_no_scheme_are_named_and_left_out(config, folder, caplog):
    caplog.set_level("INFO")
    read_labelled_set(folder(image=["x.png"], valence=["5"], valence_sd=["1"], polarity2=[""], mikels8=["awe"]), config, {})
    assert caplog.messages == ["ignored, as they hold no labels for tiny: valence_sd, polarity2, mikels8"]


def test_images_without_a_label_are_counted_and_left_out(config, folder):
    labels = read_labelled_set(folder(image=["x.png", "y.png", "z.png"], valence=["", "", "3"], polarity2=["good", " ", ""]), config, {})
    assert labels.without_labels == 1
    assert [path.name for path in labels.table.images] == ["x.png", "z.png"]
    assert labels.targets["polarity2"].tolist() == [[0, 1], [0, 0]]


def test_polarity_is_not_made_of_valence(config, npz):
    assert list(read_labelled_set(npz(valence=[2.0, 5.0, 8.0]), config, {}).targets) == ["valence"]


def test_ratings_are_read_on_the_scale_they_were_given_on(config, npz):
    path = npz(valence=[1.0, 4.0, 7.0])
    assert read_labelled_set(path, config, {"valence": (1, 7)}).targets["valence"] @ np.arange(1, 10) == pytest.approx([1, 5, 9])
    assert read_labelled_set(path, config, {}).targets["valence"] @ np.arange(1, 10) == pytest.approx([1, 4, 7])


def refused(path: Path, config: Config, ranges: dict | None = None) -> str:
    with pytest.raises(DataError) as error:
        read_labelled_set(path, config, ranges or {})
    return str(error.value)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"valenc": (1, 7)}, r"--range valenc: no scheme of tiny \(did you mean 'valence'\?\); it knows polarity2, ekman6, valence"),
        ({"ekman6": (1, 7)}, "--range ekman6: ekman6 is categorical, only ratings have a range: leave the flag out"),
        ({"valence": (1, 7)}, r"--range valence: .*labels.csv has no ratings of valence; it has ekman6"),
    ],
)
def test_a_range_that_fits_nothing_is_refused(config, folder, ranges, message):
    assert re.fullmatch(message, refused(folder(image=["x.png"], ekman6=["joy"]), config, ranges))


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("ekman6", "joyy", r"column 'ekman6': 'joyy' is not a label of ekman6 \(did you mean 'joy'\?\): anger, .*"),
        ("valence", "9.5", r"column 'valence': .*9.5.*\[1.0, 9.0\]; --range valence=LOW,HIGH states the scale of the ratings"),
        ("valence", "high", r"column 'valence': 'high' is not a number; --range .*"),
        ("mood", "joy", "has no labels for tiny, which knows polarity2, ekman6, valence; it has mood"),
        ("ekman6", "", "has no labels for tiny, .*"),
    ],
)
def test_a_label_that_is_wrong_is_named(config, folder, column, cell, message):
    assert re.fullmatch(f".*labels.csv,? {message}", refused(folder(**{"image": ["x.png"], column: [cell]}), config))


def test_embeddings_of_another_tower_are_refused(config, npz):
    path = npz(embedding=np.ones((3, 5), np.float32), valence=[1.0, 2.0, 3.0])
    assert refused(path, config) == f"{path}: embeddings of 5 dimensions; tiny reads {DIM}, of its own tower"


def test_labels_that_are_not_one_for_each_image_are_refused(config, npz):
    assert "'valence'" in refused(npz(valence=[1.0, 2.0]), config)
    assert "'valence'" in refused(npz(valence=np.ones((3, 9))), config)


def test_files_that_are_missing_are_refused(config, folder, tmp_path):
    assert "gone" in refused(tmp_path / "gone", config)
    assert "gone.npz" in refused(tmp_path / "gone.npz", config)
    path = folder(image=["x.png", "y.png"], ekman6=["joy", "fear"])
    (path / "images" / "y.png").unlink()
    assert "'y.png'" in refused(path, config)
    (path / "labels.csv").write_text("picture,ekman6\nx.png,joy\n")
    assert "no column 'image'" in refused(path, config)
    (path / "labels.csv").unlink()
    assert "labels.csv" in refused(path, config)
