"""Trains a model on a CLIP tower of random weights, to measure which settings change labels.

A trained ViT-B/32 can't be had without a network. So a mapper and a BART are trained on the random tower's embeddings of some photos.
Each scheme's labels divide one principal component of the embeddings into equally frequent labels, so that photos near the border
between two labels are common.
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
    """Return a CLIP tower of random weights."""
    torch.manual_seed(0)
    dim = {"ViT-B-32": 512, "ViT-L-14": 768}[name]
    return Encoder.bundled(TowerConfig(embedding_dim=dim, mean=CLIP_MEAN, deviation=CLIP_DEVIATION, vision_cfg=VISION[name]))


def labelled(embeddings: np.ndarray) -> Labelled:
    """Label photos by the principal components of their embeddings, float32 [n, dim]."""
    unit = torch.nn.functional.normalize(torch.from_numpy(embeddings), dim=1)
    components = torch.pca_lowrank(unit, len(SCHEMES))[0].numpy()
    targets = {name: evenly(scores, len(load_scheme(name).labels)) for name, scores in zip(SCHEMES, components.T, strict=True)}
    rows = np.arange(len(embeddings))
    return Labelled(embeddings, targets, rows.astype(str), np.ones_like(rows), np.full(len(rows), "photos"))


def evenly(scores: np.ndarray, labels: int) -> np.ndarray:
    """Return labels, float32 [n, labels], by rank of the scores: the lowest get the first label, and all labels are equally frequent."""
    ranks = scores.argsort().argsort()
    return np.eye(labels, dtype=np.float32)[ranks * labels // len(scores)]


def student(data: Labelled, tower: TowerConfig, seed: int = 0) -> UGRIE:
    """Return a model trained on these labels, without its tower."""
    torch.manual_seed(seed)
    recipe = Recipe(name="student", schemes=(), tower="lite2", data=(), epochs=30, batch_size=16, learning_rate=2e-3)
    model = new_model(recipe, [load_scheme(name) for name in SCHEMES], tower)
    train(model, data, recipe)
    return model


@torch.inference_mode(False)
def checkpoint_of(tower: str, photos: Path, folder: Path) -> None:
    """Write a checkpoint with a tower of random weights, trained on the photos of a folder."""
    encoder = vit(tower)
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    crops = np.stack([preprocess.crop(Image.open(file), encoder.config.crop_size) for file in files])
    (embeddings,) = encoder.stream([crops])
    model = student(labelled(embeddings.numpy()), encoder.config)
    model.encoder = encoder
    model.save_pretrained(folder, "# A tower of random weights, for measuring\n")
