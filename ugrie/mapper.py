"""Maps an image embedding to a short prefix that BART's encoder reads in place of words (ClipCap, Mokady et al. 2021).

The embedding is L2-normalised, then standardised with the mean and deviation of the training data: CLIP embeddings fill a
narrow cone, so that what sets two images apart is small beside what all have in common.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Mapper(nn.Module):
    """[batch, embedding_dim] -> [batch, prefix_length, d_model], through one hidden layer of `hidden` units."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, embedding_dim: int, prefix_length: int, d_model: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.prefix_length = prefix_length
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("deviation", torch.ones(embedding_dim))
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(embedding_dim, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, prefix_length * d_model),
        )

    def standardise(self, embeddings: Tensor) -> None:
        """Takes mean and deviation from the training data's embeddings, [images, embedding_dim]."""
        unit = normalize(embeddings.float(), dim=-1)
        self.mean.copy_(unit.mean(0))
        self.deviation.copy_(unit.std(0).clamp_min(1e-6))

    def forward(self, embeddings: Tensor) -> Tensor:
        unit = (normalize(embeddings, dim=-1) - self.mean) / self.deviation
        return self.layers(unit).unflatten(-1, (self.prefix_length, -1))
