"""The model a run uses, wherever it lies."""

import shutil

import fsspec
import pytest

from pipeline.errors import UserError
from pipeline.weights import local_folder
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
