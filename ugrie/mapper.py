"""Maps an image embedding to a short prefix that BART's encoder reads in place of words (ClipCap, Mokady et al. 2021).

The embedding is L2-normalised, then centred and projected on the principal components of the training data: CLIP embeddings
fill a narrow cone, so that what sets two images apart is small beside what all have in common, and with a few thousand
labelled images the components of small variance only help to learn them by heart.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class Mapper(nn.Module):
    """[batch, embedding_dim] -> [batch, prefix_length, d_model], through one hidden layer of `hidden` units."""

    mean: Tensor
    projection: Tensor

    def __init__(self, embedding_dim: int, components: int, prefix_length: int, d_model: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.prefix_length = prefix_length
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("projection", torch.eye(embedding_dim, components))
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(components, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, prefix_length * d_model),
        )

    def fit_projection(self, embeddings: Tensor) -> None:
        """Takes mean and components from the training data's embeddings, [images, embedding_dim].

        All components are scaled alike, to a mean variance of one: their proportions stay what they are.
        """
        unit = normalize(embeddings.double(), dim=-1)
        self.mean.copy_(unit.mean(0))
        centred = unit - unit.mean(0)
        components = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, : self.projection.shape[1]]
        self.projection.copy_(components / (centred @ components).square().mean().sqrt())

    def forward(self, embeddings: Tensor) -> Tensor:
        components = (normalize(embeddings, dim=-1) - self.mean) @ self.projection
        return self.layers(components).unflatten(-1, (self.prefix_length, -1))
