"""A run's model is found under a bundled name, a local path or a URL."""

import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from benchmarks.servers.proxy import Proxy
from pipeline.errors import UserError
from pipeline.stages.model_files import local_folder, tower_file
from ugrie.model import checkpoint

BUNDLED = checkpoint.find("ugrie-tiny")
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An empty cache of downloaded models."""
    monkeypatch.setenv("UGRIE_CACHE", str(tmp_path_factory.mktemp("machine") / "cache"))


def named():
    return checkpoint.read_config(checkpoint.find("ugrie-l14"))


def test_a_bundled_model_is_given_by_its_name():
    assert local_folder("ugrie-tiny", {}) == BUNDLED


def test_a_model_of_ones_own_is_given_as_its_folder(tmp_path):
    shutil.copytree(BUNDLED, tmp_path / "mine")
    assert local_folder(str(tmp_path / "mine"), {}) == tmp_path / "mine"


def test_a_model_elsewhere_is_fetched_once_in_a_process():
    fs = fsspec.filesystem("memory")
    for file in checkpoint.FILES:
        fs.pipe_file(f"/weights-test/mine/{file}", (BUNDLED / file).read_bytes())
    folder = local_folder("memory://weights-test/mine/", {})
    assert checkpoint.digest(folder) == checkpoint.digest(BUNDLED)
    fs.rm("/weights-test", recursive=True)
    assert local_folder("memory://weights-test/mine/", {}) == folder


def test_a_model_in_s3_and_its_tower_are_fetched_once_on_a_machine(s3, tmp_path):
    for file in checkpoint.FILES:
        s3.put(f"models/mine/{file}", (BUNDLED / file).read_bytes())
    (tmp_path / "clip.safetensors").write_bytes(bytes(range(256)) * 1000)
    s3.put("models/clip.safetensors", (tmp_path / "clip.safetensors").read_bytes())
    with Proxy(s3.endpoint) as proxy:
        options = s3.options | {"client_kwargs": {"endpoint_url": proxy.endpoint, "region_name": "us-east-1"}}
        model, tower = f"s3://{s3.bucket}/models/mine", f"s3://{s3.bucket}/models/clip.safetensors"
        folder, file = local_folder(model, options), tower_file(named(), tower, options)
        asked = proxy.count("GET", "/models/")
        program = (
            "from pipeline.stages.model_files import *; config = checkpoint.read_config(checkpoint.find('ugrie-l14'));"
            f"print(local_folder({model!r}, {options!r}), tower_file(config, {tower!r}, {options!r}))"
        )
        other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert other.stdout.split() == [str(folder), file], other.stderr
        assert proxy.count("GET", "/models/") == asked > 0
    assert checkpoint.digest(folder) == checkpoint.digest(BUNDLED)
    assert Path(file).read_bytes() == (tmp_path / "clip.safetensors").read_bytes()
    assert Path(file).suffix == ".safetensors"


def test_a_tower_without_a_file_is_what_open_clip_downloads(monkeypatch):
    monkeypatch.setattr("ugrie.vision.download.fetch_weights", lambda tower: f"{tower.name}.safetensors")
    assert tower_file(named(), None, {}) == "ViT-L-14-quickgelu.safetensors"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ugrie-tny", r"there is no model 'ugrie-tny' \(did you mean 'ugrie-tiny'\?\)"),
        (
            "memory://weights-test/gone",
            "memory://weights-test/gone/config.json can't be fetched: .*; check the address and the credentials",
        ),
        ("s4://bucket/model", "did you mean 's3://'"),
    ],
)
def test_a_model_that_is_not_there_is_the_users_error(model, message):
    with pytest.raises(UserError, match=message):
        local_folder(model, {})


def test_a_folder_that_is_no_checkpoint_says_what_it_lacks(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"is not a UGRIE checkpoint: it lacks model.safetensors, tokenizer.json"):
        local_folder(str(tmp_path), {})


def test_a_named_tower_without_weights_is_refused_with_what_to_do():
    model = named()
    tower = model.tower.model_copy(update={"pretrained": "nowhere"})
    with pytest.raises(UserError, match=r"ViT-L-14-quickgelu \(nowhere\) could not be fetched[\s\S]*--tower-weights FILE"):
        tower_file(model.model_copy(update={"tower": tower}), None, {})


def test_a_file_of_weights_must_be_there(tmp_path):
    file = tmp_path / "clip.safetensors"
    with pytest.raises(UserError, match=r"clip\.safetensors: there is no such file"):
        tower_file(named(), str(file), {})
    with pytest.raises(UserError, match=r"clip\.safetensors can't be fetched"):
        tower_file(named(), f"file://{file}", {})
    file.touch()
    assert tower_file(named(), str(file), {}) == str(file)
    assert Path(tower_file(named(), f"file://{file}", {})).read_bytes() == b""


@pytest.mark.parametrize("name", ["clip.pt", "clip.bin", "clip.pkl", "clip"])
def test_a_file_that_could_hold_code_is_no_file_of_weights(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"weights are read as \.safetensors only"):
        tower_file(named(), str(tmp_path / name), {})
    with pytest.raises(UserError, match=r"weights are read as \.safetensors only"):
        tower_file(named(), f"file://{tmp_path / name}", {})


def test_a_model_with_a_tower_of_its_own_takes_no_other():
    model = checkpoint.read_config(checkpoint.find("ugrie-tiny"))
    assert tower_file(model, None, {}) is None
    with pytest.raises(UserError, match="ugrie-tiny brings its own tower"):
        tower_file(model, "clip.safetensors", {})
