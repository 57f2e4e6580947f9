"""Fuzz `ugrie.model.checkpoint.find` with names, and `read_config` with config.json files."""

import json

from hypothesis import strategies as st

from tests.fuzz.inputs import NAMES, changed, mutated
from ugrie.model.checkpoint import FOLDER

FILES = [path.read_bytes() for path in sorted(FOLDER.glob("*/config.json"))]
ODD = [
    b"[" * 100_000,
    b'{"format": 1' + b"0" * 5000 + b"}",
    b'{"format": 2, "a": ' + b'{"a": ' * 5000,
    b'{"format": NaN}',
    b'{"format": -1}',
]
ELSEWHERE = st.sampled_from(["hf-hub:a/b", "hf_hub:a/b", "local-dir:/root", "https://host/a", "../a", "a\\b"])
WEIGHTS = {"model.safetensors": b"", "tokenizer.json": b""}


def written(document):
    return json.dumps(document, default=str).encode() if len(str(document)) < 10**6 else b""


def test_a_config_is_read_or_a_checkpoint_error(explore):
    documents = [json.loads(file) for file in FILES]
    files = changed(documents).map(written) | mutated(FILES) | st.sampled_from(ODD)
    outcomes = explore("checkpoint", files, lambda content: (".", WEIGHTS | {"config.json": content}), 120)
    assert outcomes.keys() == {"valid", "CheckpointError"}


def test_a_config_that_names_a_model_elsewhere_is_a_checkpoint_error(explore):
    def naming(key, source, at):
        document = json.loads(FILES[0])
        return document | {"tower": document["tower"] | ({key: source} if at == "tower" else {"vision_cfg": {key: source}})}

    towers = st.builds(naming, st.sampled_from(["name", "pretrained"]), ELSEWHERE, st.just("tower"))
    configs = st.builds(
        naming, st.sampled_from(["timm_model_name", "timm_pool", "hf_model_name", "pool_type"]), ELSEWHERE, st.just("vision")
    )
    outcomes = explore("checkpoint", (towers | configs).map(written), lambda content: (".", WEIGHTS | {"config.json": content}), 30)
    assert outcomes.keys() == {"CheckpointError"}


def test_a_checkpoint_of_any_name_is_found_or_a_checkpoint_error(explore):
    names = NAMES | st.sampled_from(["x" * 5000, "file", "file/x", "ugrie-tiny", "./ugrie-l14"])
    outcomes = explore("checkpoint", names, lambda name: (name, {"file": b""}), 30)
    assert outcomes.keys() <= {"valid", "CheckpointError"}
