"""A stage tower computes the statistics of the network's own stages, with batch normalisation folded in."""

import pytest
import torch
from torch import nn

from ugrie.libraries import timm
from ugrie.vision.stage_tower import StageTower


@pytest.fixture
def network() -> nn.Module:
    """An EfficientNet whose batch normalisation has an effect."""
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite2")
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2),
            ):
                nn.init.uniform_(values, low, high)
    return network.eval()


@pytest.mark.parametrize("stages", [1, 2])
@torch.inference_mode()
def test_an_embedding_is_mean_and_deviation_of_the_last_stages(network, stages):
    pixels, maps = torch.randn(2, 3, 64, 64), []
    hooks = [block.register_forward_hook(lambda _module, _inputs, output: maps.append(output)) for block in network.blocks[-stages:]]
    network(pixels)
    for hook in hooks:
        hook.remove()
    expected = torch.cat([statistic for m in maps for statistic in (m.mean((2, 3)), m.flatten(2).std(2))], 1)
    embeddings = StageTower(network, stages).eval()(pixels)
    assert embeddings.shape == (2, {1: 2 * 352, 2: 2 * (208 + 352)}[stages])
    torch.testing.assert_close(embeddings, expected, atol=1e-4, rtol=1e-3)


def test_no_batch_normalisation_is_left(network):
    assert not any(isinstance(module, nn.BatchNorm2d) for module in StageTower(network, 2).modules())
