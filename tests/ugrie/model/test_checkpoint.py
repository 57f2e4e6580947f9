"""Checkpoints are found by name or folder; a wrong one is refused before anything is loaded."""

import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys

import pytest
from safetensors.numpy import load_file, save_file

from ugrie import UGRIE
from ugrie.model import checkpoint
from ugrie.model.checkpoint import CheckpointError
from ugrie.schemes.scheme import SchemeError, load_scheme


@pytest.fixture
def folder(saved, tmp_path):
    """A checkpoint that a test may damage."""
    return shutil.copytree(saved, tmp_path / "mine")


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_checkpoint_is_bundled_and_complete():
    assert "ugrie-tiny" in checkpoint.bundled_checkpoints()
    for name in checkpoint.bundled_checkpoints():
        config = checkpoint.read_config(checkpoint.find(name))
        assert config.name == name
        assert set(config.temperatures) == {scheme.name for scheme in config.schemes}


def test_a_checkpoint_is_found_by_its_folder(folder):
    assert checkpoint.find(str(folder)) == folder


def test_an_unknown_name_is_answered_with_the_nearest_and_all_there_are():
    with pytest.raises(
        CheckpointError, match=r"no model 'ugrie-tinny' \(did you mean 'ugrie-tiny'\?\); the bundled models are ugrie-l14, ugrie-tiny"
    ):
        checkpoint.find("ugrie-tinny")


@pytest.mark.parametrize("name", ["x" * 5000, "\0", ""])
def test_a_name_that_no_folder_can_have_is_no_model(name):
    with pytest.raises(CheckpointError, match=r"there is no model|is not a UGRIE checkpoint"):
        checkpoint.find(name)


@pytest.mark.parametrize("file", checkpoint.FILES)
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=re.escape(f"{folder} is not a UGRIE checkpoint: it lacks {file}")):
        checkpoint.find(str(folder))


def test_a_file_is_no_checkpoint(folder):
    with pytest.raises(CheckpointError, match="there is no model"):
        checkpoint.find(str(folder / "config.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mapper": {}}, "mapper.components: Field required"),
        ({"temperatures": None}, "temperatures: Input should be"),
        ({"schemes": [{"name": "x"}]}, "schemes.0.title: Field required"),
        ({"tower": {"embedding_dim": "wide"}}, "tower.embedding_dim: Input should be a valid integer"),
        ({"tower": {"embedding_dim": 0}}, "tower.embedding_dim: Input should be greater than 0"),
        ({"temperatures": {"calmness": 0.0}}, "temperatures.calmness: Input should be greater than 0"),
        ({"schemes": []}, "schemes: a template needs at least one scheme"),
        (
            {"schemes": [load_scheme("valence").model_dump(mode="json")] * 2},
            "schemes: two schemes of the template have the name",
        ),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_config_is_named_with_its_field(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=re.escape(f"{folder / 'config.json'}: {message}")):
        checkpoint.read_config(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"\xff\xfe"])
def test_a_config_that_is_no_object_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(folder / "config.json"))):
        checkpoint.read_config(folder)


@pytest.mark.parametrize(("stated", "remedy"), [(2, "train it again"), (4, "upgrade UGRIE")])
def test_another_format_is_refused_with_the_remedy(folder, stated, remedy):
    """Other fields are not checked: their meaning in another format is unknown."""
    edit(folder, format=stated, mapper={"kind": "another"})
    with pytest.raises(CheckpointError, match=rf"format {stated}; this UGRIE reads format 3: {remedy}"):
        checkpoint.read_config(folder)


def test_config_survives_its_file(folder, model):
    assert checkpoint.read_config(folder) == model.config


def test_the_digest_is_of_the_content_not_the_place(saved, folder):
    assert checkpoint.digest(folder) == checkpoint.digest(saved)
    assert re.fullmatch("[0-9a-f]{12}", checkpoint.digest(folder))


@pytest.mark.parametrize("file", checkpoint.FILES)
def test_the_digest_tells_every_change_of_a_file(saved, folder, file):
    with (folder / file).open("ab") as out:
        out.write(b" ")
    assert checkpoint.digest(folder) != checkpoint.digest(saved)


def test_the_card_is_no_part_of_the_digest(saved, folder):
    (folder / "MODEL_CARD.md").write_text("other words")
    assert checkpoint.digest(folder) == checkpoint.digest(saved)


def test_bytes_do_not_wander_between_files_unnoticed(folder):
    before = checkpoint.digest(folder)
    config, tokenizer = ((folder / name).read_bytes() for name in ("config.json", "tokenizer.json"))
    (folder / "config.json").write_bytes(tokenizer)
    (folder / "tokenizer.json").write_bytes(config)
    assert checkpoint.digest(folder) != before


@pytest.mark.parametrize(
    ("part", "differs"), [("bart.", False), ("mapper.", False), ("encoder.", True)], ids=["BART", "the mapper", "the tower"]
)
def test_a_towers_digest_is_that_of_its_own_weights(tmp_path, part, differs):
    folder = shutil.copytree(checkpoint.find("ugrie-tiny"), tmp_path / "mine")
    config = checkpoint.read_config(folder)
    before = checkpoint.tower_digest(folder, config)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.startswith(part))
    weights[name] = weights[name] + 1
    save_file(weights, folder / "model.safetensors")
    assert (checkpoint.tower_digest(folder, config) != before) == differs


def test_the_digest_of_a_tower_known_by_name_is_that_of_its_description_and_its_weights(tmp_path):
    folder = checkpoint.find("ugrie-l14")
    config = checkpoint.read_config(folder)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"weights")
    before = checkpoint.tower_digest(folder, config, str(file))
    other = config.model_copy(update={"tower": config.tower.model_copy(update={"pretrained": "laion2b"})})
    assert checkpoint.tower_digest(folder, other, str(file)) != before
    assert checkpoint.tower_digest(folder, config.model_copy(update={"name": "another"}), str(file)) == before
    file.write_bytes(b"others!")  # in the same path, of the same size
    assert checkpoint.tower_digest(folder, config, str(file)) != before


def test_a_tower_whose_weights_are_stated_takes_no_others_and_needs_no_file_to_be_known(tmp_path):
    folder = checkpoint.find("ugrie-l14")
    config = checkpoint.read_config(folder)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"weights")
    stating = config.model_copy(update={"tower": config.tower.model_copy(update={"sha256": hashlib.sha256(b"weights").hexdigest()})})
    digest = checkpoint.tower_digest(folder, config, str(file))
    assert checkpoint.tower_digest(folder, stating, str(file)) == checkpoint.tower_digest(folder, stating) == digest
    file.write_bytes(b"others!")
    with pytest.raises(
        CheckpointError, match=r"weights\.safetensors does not hold the weights of ViT-L-14-quickgelu that the model was trained"
    ):
        checkpoint.tower_digest(folder, stating, str(file))
    with pytest.raises(CheckpointError, match="ugrie-l14 does not state the weights of its image tower: give them as tower_weights"):
        checkpoint.tower_digest(folder, config)


def test_a_tower_in_a_broken_file_has_no_digest(tmp_path):
    folder = shutil.copytree(checkpoint.find("ugrie-tiny"), tmp_path / "mine")
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"model\.safetensors can't be read"):
        checkpoint.tower_digest(folder, checkpoint.read_config(folder))


def test_schemes_are_stated_in_the_order_asked(model):
    assert [scheme.name for scheme in model.config.template(("moment", "calmness")).schemes] == ["moment", "calmness"]
    assert model.config.template().schemes == model.config.schemes


def test_a_scheme_it_was_not_trained_for_is_answered_with_those_it_was(model):
    with pytest.raises(SchemeError, match=r"tiny was not trained for 'momemt' \(did you mean 'moment'\?\); it knows calmness, liking"):
        model.config.template(("calmness", "momemt"))


def test_a_job_checks_its_model_without_torch():
    check = "from ugrie.model import checkpoint; checkpoint.read_config(checkpoint.find('ugrie-tiny'))"
    code = f"import sys; {check}; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("tower", "field"),
    [
        ({"vision_cfg": {"timm_model_name": "hf-hub:someone/model"}}, r"vision_cfg: 'timm_model_name' must be a plain name"),
        ({"vision_cfg": {"timm_model_name": "hf_hub:someone/model"}}, r"vision_cfg: 'timm_model_name' must be a plain name"),
        ({"vision_cfg": {"timm_model_name": "local-dir:/root"}}, r"vision_cfg: 'timm_model_name' must be a plain name"),
        (
            {"vision_cfg": {"timm_model_name": "resnet18", "act_kwargs": {"file": ["https://host/a"]}}},
            r"vision_cfg: 'file' must be a plain name",
        ),
        ({"vision_cfg": {"timm_model_name": "resnet18", "timm_model_pretrained": True}}, "'timm_model_pretrained' asks for weights"),
        ({"vision_cfg": {"timm_model_name": "resnet18", "pretrained": True}}, "'pretrained' asks for weights"),
        ({"vision_cfg": {"hf_model_name": "roberta"}}, "'hf_model_name' asks for weights from a model hub"),
        ({"vision_cfg": {"hf_tokenizer_name": "roberta"}}, "'hf_tokenizer_name' asks for weights from a model hub"),
        ({"vision_cfg": None, "name": "hf-hub:someone/model", "pretrained": "openai"}, "name: 'hf-hub:someone/model' must be a plain name"),
        ({"vision_cfg": None, "name": "ViT-B-32", "pretrained": "../weights"}, "pretrained: '../weights' must be a plain name"),
        ({"vision_cfg": {"no_such_key": 1}}, "vision_cfg: .*no_such_key"),
        ({"vision_cfg": {"timm_model_name": "no_such_model"}}, "vision_cfg: .*no_such_model"),
    ],
)
def test_a_checkpoint_that_names_a_model_elsewhere_is_refused_before_a_socket_is_opened(folder, monkeypatch, tower, field):
    connected = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: connected.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: connected.append(address) or [])
    config = json.loads((folder / "config.json").read_text())
    edit(folder, tower={**config["tower"], **tower})
    with pytest.raises(CheckpointError, match=rf"config\.json: tower\.{field}" if field.startswith(("v", "n", "p")) else field) as error:
        UGRIE.from_pretrained(folder)
    assert "\n" not in str(error.value)
    assert connected == []
