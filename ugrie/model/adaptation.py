"""Adaptation: what labels given after the training say of a checkpoint's answers (`ugrie train --from`).

A scheme's log-probabilities are corrected by a function of the embedding, a sum of the mapper's kernel over support points: the images
with the new labels, and landmarks of the training data, at which the correction was held near zero. A scheme that BART was not trained for
starts from its labels' frequencies, or from zero-shot answers, which the correction then turns into answers that have learnt from labels
(Zhang et al., Tip-Adapter, ECCV 2022).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ugrie.model.checkpoint import AdaptationConfig
from ugrie.model.mapper import laplacian
from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.scheme import Scheme


def directions(scheme: Scheme) -> np.ndarray:
    """Return how a scheme's outputs move its labels' log-probabilities: float32 [outputs, labels].

    One output for each label; an ordinal scheme has one in all, which moves its levels up or down the scale.
    """
    if scheme.kind == "categorical":
        return np.eye(len(scheme.labels), dtype=np.float32)
    values = np.asarray(scheme.values)
    return ((values - values.mean()) / values.std()).astype(np.float32)[None]


class Adaptation(nn.Module):
    """Holds the corrections of the schemes that `config` names. Lengths: m support points, o outputs and l labels of these schemes."""

    support: Tensor  # float32 [m, components]
    weights: Tensor  # float32 [m, o]
    bias: Tensor  # float32 [l], log-probabilities that a scheme starts from; zeros where something else gives them
    vectors: Tensor  # float32 [v, embedding_dim], the embedded prompts of the schemes that start from zero-shot answers

    def __init__(self, config: AdaptationConfig, schemes: Sequence[Scheme], components: int, embedding_dim: int):
        super().__init__()
        by_name = {scheme.name: scheme for scheme in schemes}
        self.schemes = tuple(by_name[name] for name in config.schemes)
        self.prompted = tuple(by_name[name] for name in config.zero_shot)
        outputs, labels = sum(scheme.answers for scheme in self.schemes), sum(len(scheme.labels) for scheme in self.schemes)
        prompts = sum(_prompts(scheme) for scheme in self.prompted)
        self.register_buffer("support", torch.zeros(config.support, components))
        self.register_buffer("weights", torch.zeros(config.support, outputs))
        self.register_buffer("bias", torch.zeros(labels))
        self.register_buffer("vectors", torch.zeros(prompts, embedding_dim))
        for scheme in self.schemes:
            self.register_buffer(f"directions_{scheme.name}", torch.from_numpy(directions(scheme)), persistent=False)

    def corrections(self, components: Tensor) -> dict[str, Tensor]:
        """Return by scheme what is added to the log-probabilities of its labels: [batch, components] -> [batch, labels]."""
        outputs = laplacian(components, self.support) @ self.weights
        parts = outputs.split([scheme.answers for scheme in self.schemes], 1)
        biases = self.bias.split([len(scheme.labels) for scheme in self.schemes])
        return {
            scheme.name: part @ self.get_buffer(f"directions_{scheme.name}") + bias
            for scheme, part, bias in zip(self.schemes, parts, biases, strict=True)
        }

    def zero_shot(self, mean: Tensor) -> Mapping[str, ZeroShot]:
        """Return by name the zero-shot answers that schemes start from; `mean` is the checkpoint's mean embedding."""
        vectors = self.vectors.cpu().numpy()
        ends = np.cumsum([_prompts(scheme) for scheme in self.prompted])
        return {
            scheme.name: ZeroShot(scheme, "", vectors[end - _prompts(scheme) : end], mean.cpu().numpy())
            for scheme, end in zip(self.prompted, ends, strict=True)
        }


def _prompts(scheme: Scheme) -> int:
    """Return the number of a scheme's embedded prompts (`ugrie.model.zero_shot.ZeroShot`)."""
    return len(scheme.labels) if scheme.kind == "categorical" else 2
