"""Text tower: embeds the prompts of labels with the text half of a CLIP known by name. It is loaded for this alone, and freed."""

import logging
from collections.abc import Sequence
from operator import itemgetter

import numpy as np
import torch
from torch.nn.functional import normalize

from ugrie.schemes.prompts import Prompts
from ugrie.vision.config import TowerConfig


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def embed_labels(config: TowerConfig, weights: str, schemes: Sequence[Sequence[Prompts]]) -> list[np.ndarray]:
    """Return the label embeddings of each scheme, float32 [labels, dim] of unit length, from its labels' prompts.

    The prompts of a word are averaged as open_clip's zero-shot classifier averages templates, and the words of a label likewise.
    `weights` is the file of the whole CLIP. Raises ValueError if it can't be loaded.
    """
    from ugrie.libraries import open_clip

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)  # open_clip logs each of its steps
    try:
        try:
            clip = open_clip.create_model(config.name, pretrained=weights, require_pretrained=True).eval()
        except Exception as error:  # open_clip raises errors of many kinds
            remedy = "give the file of the whole CLIP as tower_weights"
            raise ValueError(f"the text tower of {config.name} can't be loaded from {weights}: {first_line(error)}; {remedy}") from error
        try:
            tokenizer = open_clip.get_tokenizer(config.name)
        except Exception as error:  # so do the clients of tokenizers
            remedy = "it is downloaded from Hugging Face's hub, unless it is in its cache"
            raise ValueError(f"the tokenizer of {config.name} can't be had: {first_line(error)}; {remedy}") from error
    finally:
        root.setLevel(level)
    labels = [label for scheme in schemes for label in scheme]
    templates = [itemgetter(i) for i in range(len(labels[0][0]))]
    words = [word for label in labels for word in label]
    embedded = open_clip.build_zero_shot_classifier(clip, tokenizer, words, templates).T
    averaged = torch.stack([part.mean(0) for part in embedded.split([len(label) for label in labels])])
    return [part.numpy() for part in normalize(averaged, dim=-1).split([len(scheme) for scheme in schemes])]
