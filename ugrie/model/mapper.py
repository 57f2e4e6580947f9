"""Maps an image embedding to a short prefix that BART's encoder reads in place of words (ClipCap, Mokady et al. 2021).

Between the two lies a regression (`ugrie.training.kernel_ridge`), whose answers the prefix is made of: with a thousand labelled images a
kernel says more of a new one than layers trained on the embeddings themselves, which learn those images by heart. What remains to
be learned, by BART, is what the answers for all schemes together say of each label.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

LENGTH = 2.0  # of the kernel; components that have nothing in common are at a distance of 1.4


class Mapper(nn.Module):
    """[batch, embedding_dim] -> [batch, prefix_length, d_model]: principal components, kernel, answers, one hidden layer.

    The embedding is L2-normalised, centred, projected on the principal components of the training data and normalised again:
    CLIP embeddings fill a narrow cone, so that what sets two images apart is small beside what all have in common, and of the
    difference from the mean the direction tells more than the length. The kernel is Laplacian, exp(-distance / LENGTH) from each
    landmark. Up to the answers nothing is trained by gradient descent.
    """

    mean: Tensor
    projection: Tensor
    landmarks: Tensor
    weights: Tensor
    bias: Tensor

    def __init__(
        self,
        embedding_dim: int,
        components: int,
        landmarks: int,
        answers: int,
        prefix_length: int,
        d_model: int,
        hidden: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.prefix_length = prefix_length
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("projection", torch.eye(embedding_dim, components))
        self.register_buffer("landmarks", torch.zeros(landmarks, components))
        self.register_buffer("weights", torch.zeros(landmarks, answers))
        self.register_buffer("bias", torch.zeros(answers))
        self.layers = nn.Sequential(nn.Linear(answers, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, prefix_length * d_model))

    def fit_projection(self, embeddings: Tensor) -> None:
        """Takes mean and components from the training data's embeddings, [images, embedding_dim]. They need no labels."""
        unit = normalize(embeddings.double(), dim=-1)
        self.mean.copy_(unit.mean(0))
        centred = unit - unit.mean(0)
        self.projection.copy_(torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, : self.projection.shape[1]])

    def set_regression(self, landmarks: Tensor, weights: Tensor, bias: Tensor) -> None:
        """Takes a regression on the components: [m, components], [m, answers] and [answers], m at most the landmarks there is room for."""
        for buffer, values in ((self.landmarks, landmarks), (self.weights, weights), (self.bias, bias)):
            buffer.zero_()
            buffer[: len(values)] = values

    def components(self, embeddings: Tensor) -> Tensor:
        """[batch, embedding_dim] -> [batch, components], of length one."""
        return normalize((normalize(embeddings, dim=-1) - self.mean) @ self.projection, dim=-1)

    def answers(self, embeddings: Tensor) -> Tensor:
        """[batch, embedding_dim] -> [batch, answers]: what the regression says of an image it was not made from."""
        kernel = torch.exp(-torch.cdist(self.components(embeddings), self.landmarks) / LENGTH)
        return kernel @ self.weights + self.bias

    def prefix(self, answers: Tensor) -> Tensor:
        """[batch, answers] -> [batch, prefix_length, d_model]."""
        return self.layers(answers).unflatten(-1, (self.prefix_length, -1))

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.prefix(self.answers(embeddings))
