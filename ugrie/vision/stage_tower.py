"""An image tower of the last stages of a convolutional network: each channel's mean and standard deviation over all positions.

The last pooled layer of a network trained for ImageNet's classes has lost much of what makes a photo's mood; earlier stages have
not. Mean and standard deviation over the positions are the statistics that describe style (Huang and Belongie, ICCV 2017).
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


class StageTower(nn.Module):
    """Turns [batch, 3, height, width] into [batch, 2 x channels], with the channels of the last `stages` stages of timm's EfficientNet.

    Changes the trunk it is given, for inference only: batch normalisation is folded into the convolutions (Jacob et al., CVPR 2018).
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
                positions = features.flatten(2).float()  # statistics lose most in a lower precision
                statistics += [positions.mean(-1), positions.std(-1)]
        return torch.cat(statistics, 1)


def _fold_normalisation(module: nn.Module) -> None:
    """Fold each batch normalisation into the convolution declared before it, as timm's EfficientNets do, and keep its activation."""
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
