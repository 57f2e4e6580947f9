"""Zero-shot: answers schemes that a checkpoint was not trained for, by the text tower of the CLIP that its image tower belongs to.

Each label is written as prompts, whose embeddings are averaged, and an image's score for a label is their cosine, times 100
(Radford et al., Learning transferable visual models from natural language supervision, ICML 2021; open_clip's evaluation). The score of
the checkpoint's mean image is subtracted, as Zhao et al. (Calibrate before use, ICML 2021) do for language models: some prompts are
closer to all images than others. So every label is equally likely for an average image, and no image's answer depends on the others of
its run.

An ordinal scheme is answered by the axis from its lowest to its highest label. Needs no torch, unless prompts are embedded.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ugrie.cache import cache_folder
from ugrie.schemes.prompts import Prompts, prompts_of
from ugrie.schemes.scheme import Scheme
from ugrie.vision.config import TowerConfig

SCALE = 100.0  # of the cosines
TEMPERATURES = {"categorical": 2.0, "ordinal": 4.0}  # docs/schemes.md says how they were chosen
SPREAD = 1 / 6  # standard deviation of an ordinal scheme's levels, as a share of its range; more where the levels are few
PROCEDURE = 1  # to be raised by whoever changes how prompts are embedded or answers computed


@dataclass(frozen=True)
class ZeroShot:
    """A scheme and the embeddings that answer it. `digest` covers all that its answers follow from, besides the checkpoint.

    `vectors` are the labels' embeddings, float32 [labels, dim] of unit length; an ordinal scheme has those of its two ends only.
    `mean` is the checkpoint's mean image embedding, float32 [dim].
    """

    scheme: Scheme
    digest: str
    vectors: np.ndarray = field(repr=False, compare=False)
    mean: np.ndarray = field(repr=False, compare=False)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the images' scores for each of `vectors`, float32 [n, vectors]; `embeddings` is float32 [n, dim] of any norm."""
        norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
        return SCALE * (embeddings / np.maximum(norms, 1e-12) - self.mean) @ self.vectors.T

    def probs(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the probabilities of the scheme's labels: float32 [n, labels].

        In an ordinal scheme, the probability of the highest label against the lowest is the image's place in the range. The levels
        are distributed around it like a normal distribution.
        """
        scores = self.scores(embeddings) / TEMPERATURES[self.scheme.kind]
        if self.scheme.range is not None:
            low, high = self.scheme.range
            levels = (np.asarray(self.scheme.values, np.float32) - low) / (high - low)
            place = _softmax(scores)[:, 1:]
            scores = -(((levels - place) / max(SPREAD, 1 / len(levels))) ** 2) / 2
        return _softmax(scores)


def answer(config: TowerConfig, tower: str, mean: np.ndarray, schemes: Sequence[Scheme], weights: Callable[[], str]) -> dict[str, ZeroShot]:
    """Return by name what answers each of these schemes zero-shot.

    `tower` is the digest of the CLIP that `config` names. Embedded prompts are cached (`ugrie.cache`). If some are missing, `weights`
    gives the file of the CLIP's weights, whose text tower is loaded once, and freed. Raises CacheError, what `weights` raises, and
    ValueError if that file does not hold the CLIP.
    """
    prompts = {scheme.name: prompts_of(scheme) for scheme in schemes}
    cached = {scheme.name: cache_folder("text") / f"{_key(tower, prompts[scheme.name])}.npy" for scheme in schemes}
    missing = [name for name, path in cached.items() if not path.is_file()]
    if missing:
        from ugrie.model.text_tower import embed_labels

        embedded = embed_labels(config, weights(), [prompts[name] for name in missing])
        for name, vectors in zip(missing, embedded, strict=True):
            with tempfile.TemporaryDirectory(dir=cached[name].parent) as draft:
                np.save(f"{draft}/vectors.npy", vectors)
                os.replace(f"{draft}/vectors.npy", cached[name])  # atomic: other processes on this machine use the cache, too
    found = {s.name: _read(cached[s.name], (len(prompts[s.name]), len(mean))) for s in schemes}
    return {s.name: ZeroShot(s, _digest(tower, s, prompts[s.name]), found[s.name], mean) for s in schemes}


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return cached vectors. Raises ValueError if they are not what the text tower writes."""
    try:
        vectors = np.load(path)
    except (EOFError, ValueError):
        vectors = None
    if vectors is None or vectors.shape != shape or not np.isfinite(vectors).all():
        raise ValueError(f"{path} holds no embedded prompts: remove it, and check the file of the CLIP's weights")
    return vectors


def _key(tower: str, prompts: tuple[Prompts, ...]) -> str:
    return hashlib.sha256(json.dumps([PROCEDURE, tower, prompts]).encode()).hexdigest()[:32]


def _digest(tower: str, scheme: Scheme, prompts: tuple[Prompts, ...]) -> str:
    parts = [PROCEDURE, tower, prompts, scheme.kind, scheme.label_names, scheme.values, scheme.clause, SCALE, TEMPERATURES, SPREAD]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _softmax(scores: np.ndarray) -> np.ndarray:
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)
