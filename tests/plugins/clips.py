"""Whole CLIPs of random weights that open_clip knows by name, one of each family that it builds, and a checkpoint on one of them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VIT = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
SIGLIP_TEXT = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "tokenizer_kwargs": {"clean": "canonicalize"}}
FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "resnet": {"vision_cfg": VIT | {"layers": [1, 1, 1, 1], "width": 8, "patch_size": None}, "text_cfg": TEXT},
    "timm": {
        "vision_cfg": {"image_size": 32, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"},
        "text_cfg": TEXT,
        "custom_text": True,
    },
    "siglip": {"vision_cfg": VIT, "text_cfg": TEXT | SIGLIP_TEXT, "custom_text": True, "init_logit_bias": -10.0},
}
WORDS = ("a", "photo", "picture", "in", "which", "the", "sky", "is", "clear", "grey", "stormy")


@dataclass(frozen=True)
class Clip:
    """A CLIP: what a checkpoint states of its tower, and the file of its weights."""

    tower: dict[str, Any]
    weights: str


@pytest.fixture(scope="session")
def make_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Clip]:
    """Return a function that registers a CLIP of a family with open_clip and writes its weights: `make_clip("vit", dim=8)`."""
    made: dict[tuple[str, int], Clip] = {}

    def make(family: str, dim: int = 8) -> Clip:
        if (family, dim) not in made:
            made[family, dim] = _clip(family, dim, tmp_path_factory.mktemp("clip"))
        return made[family, dim]

    return make


def _clip(family: str, dim: int, folder: Path) -> Clip:
    import torch
    from safetensors.torch import save_file

    from ugrie.libraries import open_clip

    name = f"ugrie-test-{family}-{dim}"
    described = {"embed_dim": dim, **FAMILIES[family]}
    if family == "siglip":
        described["text_cfg"] = described["text_cfg"] | {"hf_tokenizer_name": str(_tokenizer(folder / "tokenizer"))}
    (folder / f"{name}.json").write_text(json.dumps(described))
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(0)
    clip = open_clip.create_model(name)
    with torch.no_grad():
        for weight in clip.parameters():  # so that embeddings differ, and biases matter
            weight.add_(torch.randn_like(weight) * 0.3)
    save_file({key: value.contiguous() for key, value in clip.state_dict().items()}, folder / "clip.safetensors")
    tower = {"embedding_dim": dim, "crop_size": 32, "mean": (0.5,) * 3, "deviation": (0.5,) * 3, "name": name, "pretrained": "nowhere"}
    return Clip(tower, str(folder / "clip.safetensors"))


def _tokenizer(folder: Path) -> Path:
    """Write a tokenizer of words as transformers stores them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from ugrie.compat import declare_missing

    declare_missing()
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class ClipModel:
    """A checkpoint's folder, and the file of the CLIP weights that it needs."""

    folder: Path
    weights: str

    @property
    def settings(self) -> dict[str, str]:
        return {"model": str(self.folder), "tower_weights": self.weights}


@pytest.fixture(scope="session")
def clip_model(make_clip: Callable[..., Clip], tmp_path_factory: pytest.TempPathFactory) -> ClipModel:
    """ugrie-l14 on a small CLIP of random weights: it needs no download."""
    from ugrie.model import checkpoint

    clip = make_clip("vit", 768)
    folder = shutil.copytree(checkpoint.find("ugrie-l14"), tmp_path_factory.mktemp("models") / "small")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"name": "small", "tower": clip.tower}))
    return ClipModel(folder, clip.weights)
