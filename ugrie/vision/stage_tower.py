"""An image tower of the last stages of a convolutional network: how strong each channel is over the places, and how uneven.

Trained for ImageNet's classes, a network's last pooled layer has given up much of what a photo's mood is made of; the stages before
it have not. Mean and standard deviation over the places are the statistics by which style is described (Huang and Belongie, ICCV 2017).
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


class StageTower(nn.Module):
    """[batch, 3, height, width] -> [batch, 2 x channels], channels being those of the last `stages` stages of timm's EfficientNet.

    Takes the trunk over, for inference: its batch normalisation becomes part of the convolutions (Jacob et al., CVPR 2018).
    """

    def __init__(self, trunk: nn.Module, stages: int):
        super().__init__()
        self.stem = nn.Sequential(cast(nn.Module, trunk.conv_stem), cast(nn.Module, trunk.bn1))
        self.blocks = cast(nn.Sequential, trunk.blocks)
        self.stages = stages
        _fold_normalisation(self)

    def forward(self, pixels: Tensor) -> Tensor:
        features, statistics = self.stem(pixels), []
        for index, block in enumerate(self.blocks):
            features = block(features)
            if index >= len(self.blocks) - self.stages:
                places = features.flatten(2)
                statistics += [places.mean(-1), places.std(-1)]
        return torch.cat(statistics, 1)


def _fold_normalisation(module: nn.Module) -> None:
    """Each batch normalisation into the convolution declared before it, as timm's EfficientNets have them; its activation stays."""
    convolution = None
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            convolution = child
        elif isinstance(child, nn.BatchNorm2d):
            assert convolution is not None
            assert child.running_mean is not None
            assert child.running_var is not None
            convolution.weight, convolution.bias = fuse_conv_bn_weights(
                convolution.weight, convolution.bias, child.running_mean, child.running_var, child.eps, child.weight, child.bias
            )
            setattr(module, name, getattr(child, "act", nn.Identity()))
        else:
            _fold_normalisation(child)
