"""A tower in int8 gives nearly the same embeddings, and is refused where int8 has no use."""

import pytest
import torch

from ugrie.vision.config import TowerConfig
from ugrie.vision.encoder import Encoder
from ugrie.vision.int8 import Int8Error

pytestmark = pytest.mark.slow

VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}


def tower(**vision) -> Encoder:
    torch.manual_seed(0)
    return Encoder.bundled(TowerConfig(embedding_dim=32, crop_size=32, mean=(0.5,) * 3, deviation=(0.5,) * 3, vision_cfg=vision))


@pytest.fixture
def crops() -> torch.Tensor:
    return torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_embeddings_are_nearly_those_of_fp32(crops, tmp_path, monkeypatch):
    monkeypatch.setenv("UGRIE_CACHE", str(tmp_path))
    exact = tower(**VIT)(crops)
    quantized = tower(**VIT).prepare("cpu", "int8")
    assert torch.cosine_similarity(quantized(crops), exact).min() > 0.999
    assert not torch.equal(quantized(crops), exact)  # proves that int8 ran
    assert torch.allclose(quantized(crops[:1]), quantized(crops)[:1], atol=0.05)


@torch.inference_mode()
def test_the_quantized_tower_is_kept_and_found_again(crops, tmp_path, monkeypatch):
    monkeypatch.setenv("UGRIE_CACHE", str(tmp_path))
    first = tower(**VIT).prepare("cpu", "int8")(crops)
    (kept,) = (tmp_path / "int8").iterdir()
    written = kept.stat().st_mtime_ns
    assert torch.equal(tower(**VIT).prepare("cpu", "int8")(crops), first)
    assert kept.stat().st_mtime_ns == written


def test_convolutions_are_refused():
    trunk = tower(image_size=32, timm_model_name="tf_efficientnet_lite2", timm_pool="avg", timm_proj="none")
    with pytest.raises(Int8Error, match="fp32"):
        trunk.prepare("cpu", "int8")
