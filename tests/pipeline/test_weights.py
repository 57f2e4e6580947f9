"""The model a run uses, wherever it lies."""

import shutil

import fsspec
import pytest

from pipeline.errors import UserError
from pipeline.weights import check_tower, local_folder
from ugrie import checkpoint

BUNDLED = checkpoint.find("ugrie-tiny")


def test_a_bundled_model_is_given_by_its_name():
    assert local_folder("ugrie-tiny", {}) == BUNDLED


def test_a_model_of_ones_own_is_given_as_its_folder(tmp_path):
    shutil.copytree(BUNDLED, tmp_path / "mine")
    assert local_folder(str(tmp_path / "mine"), {}) == tmp_path / "mine"


def test_a_model_elsewhere_is_fetched_once():
    fs = fsspec.filesystem("memory")
    for file in checkpoint.FILES:
        fs.pipe_file(f"/weights-test/mine/{file}", (BUNDLED / file).read_bytes())
    folder = local_folder("memory://weights-test/mine/", {})
    assert checkpoint.digest(folder) == checkpoint.digest(BUNDLED)
    fs.rm("/weights-test", recursive=True)
    assert local_folder("memory://weights-test/mine/", {}) == folder


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ugrie-tny", r"there is no model 'ugrie-tny' \(did you mean 'ugrie-tiny'\?\)"),
        ("memory://weights-test/gone", "memory://weights-test/gone is no UGRIE checkpoint that can be read: config.json"),
        ("s4://bucket/model", "did you mean 's3://'"),
    ],
)
def test_a_model_that_is_not_there_is_the_users_error(model, message):
    with pytest.raises(UserError, match=message):
        local_folder(model, {})


def test_a_folder_that_is_no_checkpoint_says_what_it_lacks(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"is no UGRIE checkpoint: it lacks model.safetensors, tokenizer.json"):
        local_folder(str(tmp_path), {})


def test_a_named_tower_without_weights_is_refused_with_what_to_do():
    model = checkpoint.read_config(checkpoint.find("ugrie-l14"))
    tower = model.tower.model_copy(update={"pretrained": "nowhere"})
    with pytest.raises(UserError, match=r"ViT-L-14-quickgelu \(nowhere\) could not be fetched[\s\S]*--tower-weights FILE"):
        check_tower(model.model_copy(update={"tower": tower}), None)


def test_a_file_of_weights_must_be_there(tmp_path):
    file, model = tmp_path / "clip.safetensors", checkpoint.read_config(checkpoint.find("ugrie-l14"))
    with pytest.raises(UserError, match=r"clip\.safetensors: there is no such file"):
        check_tower(model, str(file))
    file.touch()
    check_tower(model, str(file))


@pytest.mark.parametrize("name", ["clip.pt", "clip.bin", "clip.pkl", "clip"])
def test_a_file_that_could_hold_code_is_no_file_of_weights(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"weights are read as \.safetensors only"):
        check_tower(checkpoint.read_config(checkpoint.find("ugrie-l14")), str(tmp_path / name))


def test_a_model_with_a_tower_of_its_own_takes_no_other():
    model = checkpoint.read_config(checkpoint.find("ugrie-tiny"))
    check_tower(model, None)
    with pytest.raises(UserError, match="ugrie-tiny brings its own tower"):
        check_tower(model, "clip.safetensors")
