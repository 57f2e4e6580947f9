"""A recipe's tower is configured as open_clip states, and its weights are needed only to embed images."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from ugrie import UGRIE
from ugrie.libraries import open_clip
from ugrie.training.recipe import RecipeError, Tower
from ugrie.training.towers import load_tower, tower_config
from ugrie.vision.config import TowerConfig
from ugrie.vision.lite2 import CONFIG


def test_the_bundled_tower_is_lite2():
    assert tower_config("lite2") == CONFIG


@pytest.mark.parametrize(
    ("name", "pretrained", "dim", "crop", "mean"),
    [
        ("ViT-L-14-quickgelu", "openai", 768, 224, 0.48145466),
        ("ViT-L-14-336-quickgelu", "openai", 768, 336, 0.48145466),
        ("ViT-L-14", "laion2b_s32b_b82k", 768, 224, 0.5),
        ("RN50-quickgelu", "openai", 1024, 224, 0.48145466),
    ],
)
def test_an_open_clip_tower_is_as_its_weights_were_trained(name, pretrained, dim, crop, mean):
    config = tower_config(Tower(name=name, pretrained=pretrained))
    assert (config.embedding_dim, config.crop_size, config.mean[0]) == (dim, crop, mean)
    assert (config.name, config.pretrained, config.vision_cfg) == (name, pretrained, None)


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        (
            "ViT-L-14-quickgelo",
            "openai",
            r"tower.name: open_clip has no model 'ViT-L-14-quickgelo' \(did you mean 'ViT-L-14-quickgelu'\?\)",
        ),
        (
            "ViT-L-14-quickgelu",
            "openia",
            r"open_clip has no weights 'openia' of ViT-L-14-quickgelu \(did you mean 'openai'\?\); it has openai,",
        ),
        ("ViT-S-32-alt", "openai", "no weights 'openai' of ViT-S-32-alt; it has none"),
        (
            "ViT-L-14",
            "openai",
            "the weights 'openai' are those of ViT-L-14-quickgelu: with ViT-L-14 the embeddings would be wrong; name ViT-L-14-quickgelu",
        ),
    ],
)
def test_a_tower_that_open_clip_does_not_know_is_named(name, pretrained, message):
    with pytest.raises(RecipeError, match=message):
        tower_config(Tower(name=name, pretrained=pretrained))


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[TowerConfig, str]:
    """The smallest tower that open_clip knows by name, and a file of weights for it, which are random."""
    torch.manual_seed(0)
    clip = open_clip.create_model("ViT-S-32-alt")
    file = tmp_path_factory.mktemp("clip") / "open_clip_model.safetensors"
    save_file(clip.state_dict(), file)
    deviation = (0.26862954, 0.26130258, 0.27577711)
    return (
        TowerConfig(
            embedding_dim=256, mean=(0.48145466, 0.4578275, 0.40821073), deviation=deviation, name="ViT-S-32-alt", pretrained="ours"
        ),
        str(file),
    )


@pytest.mark.slow
def test_a_checkpoint_of_a_named_tower_sees_with_open_clips_own_eyes(small, make_model, nested, tmp_path, pixels):
    """From file to labels: weights, crops and normalisation are the same as in open_clip's pipeline."""
    config, file = small
    make_model(nested, config).save_pretrained(tmp_path / "mine", "")
    assert (tmp_path / "mine" / "model.safetensors").stat().st_size < 1_000_000, "the tower is not in it"
    model = UGRIE.from_pretrained(tmp_path / "mine", tower_weights=file)
    images = [Image.fromarray(pixels(*size)).resize((3 * size[0], 3 * size[1])) for size in ((120, 90), (80, 200))]
    annotations = model.annotate(images)
    clip, preprocess = open_clip.create_model_from_pretrained("ViT-S-32-alt", pretrained=file)
    with torch.inference_mode():
        expected = clip.eval().encode_image(torch.stack([preprocess(image) for image in images]))
        crops = np.stack([(np.asarray(image.resize((224, 224)))) for image in images])
        (ours,) = model.encode([crops])
        theirs = clip.encode_image(torch.stack([preprocess(Image.fromarray(crop)) for crop in crops]))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    for annotation, by_embedding in zip(annotations, model.annotate_embeddings(expected.numpy()), strict=True):
        assert annotation.sentence == by_embedding.sentence
        for name, reading in annotation.readings.items():
            assert reading.probs == pytest.approx(by_embedding[name].probs, abs=1e-3)


def test_without_weights_embeddings_are_annotated_and_pixels_say_what_to_do(small, make_model, nested, tmp_path, pixels):
    config, _ = small
    make_model(nested, config).save_pretrained(tmp_path / "mine", "")
    model = UGRIE.from_pretrained(tmp_path / "mine")
    assert len(model.annotate_embeddings(np.ones((3, 256)))) == 3
    with pytest.raises(
        OSError, match=r"weights of ViT-S-32-alt \(ours\) could not be fetched[\s\S]*--tower-weights FILE[\s\S]*annotate_embeddings"
    ):
        model.annotate([pixels(32, 32)])


def test_weights_that_cannot_be_had_are_named_with_both_remedies(small, tmp_path):
    config, _ = small
    with pytest.raises(
        RecipeError, match=r"weights of ViT-S-32-alt \(ours\), which embed images, could not be .*--tower-weights, or train on emb"
    ):
        load_tower(config, None)
    (tmp_path / "clip.pt").write_bytes(b"no weights")
    with pytest.raises(RecipeError, match=r"tower: .*clip\.pt does not hold the weights of ViT-S-32-alt"):
        load_tower(config, str(tmp_path / "clip.pt"))
    with pytest.raises(RecipeError, match=r"tower: there is no file of CLIP weights at .*none\.pt"):
        load_tower(config, str(tmp_path / "none.pt"))
