"""A model with a CLIP tower of random weights, which still tells photos apart: for measuring what changes labels.

No trained ViT-B/32 can be had without a network. A mapper and a BART are trained on the random tower's embeddings of some photos, whose
labels cut one principal component of them for each scheme into equally many photos a label, so that photos near the border between
two labels are as common as can be.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ugrie.data.labelled import Labelled
from ugrie.model.model import UGRIE
from ugrie.schemes.scheme import load_scheme
from ugrie.training.recipe import Recipe
from ugrie.training.train import new_model, train
from ugrie.vision import preprocess
from ugrie.vision.config import TowerConfig
from ugrie.vision.encoder import Encoder

CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VISION = {
    "ViT-B-32": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "ViT-L-14": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
}
SCHEMES = ("polarity2", "polarity3", "ekman6", "valence", "arousal")


def vit(name: str) -> Encoder:
    """A CLIP tower of random weights."""
    torch.manual_seed(0)
    dim = {"ViT-B-32": 512, "ViT-L-14": 768}[name]
    return Encoder.bundled(TowerConfig(embedding_dim=dim, mean=CLIP_MEAN, deviation=CLIP_DEVIATION, vision_cfg=VISION[name]))


def labelled(embeddings: np.ndarray) -> Labelled:
    """The photos with the labels that their embeddings, float32 [n, dim], give them."""
    unit = torch.nn.functional.normalize(torch.from_numpy(embeddings), dim=1)
    components = torch.pca_lowrank(unit, len(SCHEMES))[0].numpy()
    targets = {name: evenly(scores, len(load_scheme(name).labels)) for name, scores in zip(SCHEMES, components.T, strict=True)}
    rows = np.arange(len(embeddings))
    return Labelled(embeddings, targets, rows.astype(str), np.ones_like(rows))


def evenly(scores: np.ndarray, labels: int) -> np.ndarray:
    """float32 [n, labels]: the lowest scores have the first label, the highest the last, each label as many as any other."""
    ranks = scores.argsort().argsort()
    return np.eye(labels, dtype=np.float32)[ranks * labels // len(scores)]


def student(data: Labelled, tower: TowerConfig, seed: int = 0) -> UGRIE:
    """A mapper and a BART that have learnt the labels, without the tower."""
    torch.manual_seed(seed)
    recipe = Recipe(name="student", schemes=(), tower="lite0", data=(), epochs=30, batch_size=16, learning_rate=2e-3)
    model = new_model(recipe, [load_scheme(name) for name in SCHEMES], tower)
    train(model, data, recipe)
    return model


@torch.inference_mode(False)
def checkpoint_of(tower: str, photos: Path, folder: Path) -> None:
    """Writes a checkpoint with a tower of random weights that tells these photos apart."""
    encoder = vit(tower)
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    crops = np.stack([preprocess.crop(Image.open(file), encoder.config.crop_size) for file in files])
    (embeddings,) = encoder.stream([crops])
    model = student(labelled(embeddings.numpy()), encoder.config)
    model.encoder = encoder
    model.save_pretrained(folder, "# A tower of random weights, for measuring\n")
