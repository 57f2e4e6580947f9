"""Mapper: turns an image embedding into a short prefix that BART's encoder reads in place of words (ClipCap, Mokady et al. 2021).

The prefix is computed from the outputs of a kernel regression (`ugrie.training.kernel_ridge`). With a thousand labelled images, a kernel
predicts new ones better than layers trained on the embeddings themselves, which memorise those images. BART then learns how the
outputs for all schemes together predict each label. What the outputs say of a label by themselves (`label_scores`) is pooled with what
BART says (`ugrie.model.slots`).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

LENGTH = 2.0  # the kernel's length scale; the distance between orthogonal components is 1.4
BLOCK = 8192  # images whose embeddings are in double precision at once


def laplacian(components: Tensor, points: Tensor) -> Tensor:
    """Return the kernel of each image with each point: [batch, components], [m, components] -> [batch, m]."""
    return torch.exp(-torch.cdist(components, points) / LENGTH)


class Mapper(nn.Module):
    """[batch, embedding_dim] -> [batch, prefix_length, d_model]: principal components, kernel, regression outputs, one hidden layer.

    The embedding is L2-normalised, centred, projected on the principal components of the training data and normalised again. CLIP
    embeddings fill a narrow cone: what distinguishes two images is small beside what all have in common, and the direction of the
    difference from the mean tells more than its length. The kernel is Laplacian, exp(-distance / LENGTH) from each landmark. Nothing
    before the hidden layer is trained by gradient descent.
    """

    mean: Tensor
    projection: Tensor
    landmarks: Tensor
    weights: Tensor
    bias: Tensor
    label_weights: Tensor
    label_bias: Tensor

    def __init__(
        self,
        embedding_dim: int,
        components: int,
        landmarks: int,
        answers: int,
        labels: int,
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
        self.register_buffer("label_weights", torch.zeros(answers, labels))
        self.register_buffer("label_bias", torch.zeros(labels))
        self.layers = nn.Sequential(nn.Linear(answers, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, prefix_length * d_model))

    def fit_projection(self, embeddings: Tensor) -> None:
        """Set mean and components from the training data's embeddings, [images, embedding_dim]. They need no labels."""
        blocks = embeddings.split(BLOCK)
        mean = sum((normalize(block.double(), dim=-1).sum(0) for block in blocks), torch.zeros_like(self.mean, dtype=torch.double)) / len(
            embeddings
        )
        covariance = torch.zeros(embeddings.shape[1], embeddings.shape[1], dtype=torch.double)
        for block in blocks:
            centred = normalize(block.double(), dim=-1) - mean
            covariance += centred.T @ centred
        self.mean.copy_(mean)
        self.projection.copy_(torch.linalg.eigh(covariance)[1].flip(1)[:, : self.projection.shape[1]])

    def resize(self, landmarks: int) -> None:
        """Make room for at most this many landmarks. A regression that was set is lost."""
        self.landmarks = self.landmarks.new_zeros(landmarks, self.landmarks.shape[1])
        self.weights = self.weights.new_zeros(landmarks, self.weights.shape[1])

    def set_regression(self, landmarks: Tensor, weights: Tensor, bias: Tensor) -> None:
        """Set the regression on the components: [m, components], [m, answers] and [answers], with m at most the number of landmarks."""
        for buffer, values in ((self.landmarks, landmarks), (self.weights, weights), (self.bias, bias)):
            buffer.zero_()
            buffer[: len(values)] = values

    def components(self, embeddings: Tensor) -> Tensor:
        """[batch, embedding_dim] -> [batch, components], of unit length."""
        return normalize((normalize(embeddings, dim=-1) - self.mean) @ self.projection, dim=-1)

    def answers(self, embeddings: Tensor) -> Tensor:
        """[batch, embedding_dim] -> [batch, answers]: the regression's outputs for images that it was not fitted on."""
        return self.answers_at(self.components(embeddings))

    def answers_at(self, components: Tensor) -> Tensor:
        """[batch, components] -> [batch, answers], see `answers`."""
        return laplacian(components, self.landmarks) @ self.weights + self.bias

    def label_scores(self, answers: Tensor) -> Tensor:
        """[batch, answers] -> [batch, labels]: unnormalised log-probabilities of the labels of every scheme, by the regression alone."""
        return answers @ self.label_weights + self.label_bias

    def prefix(self, answers: Tensor) -> Tensor:
        """[batch, answers] -> [batch, prefix_length, d_model]."""
        return self.layers(answers).unflatten(-1, (self.prefix_length, -1))

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.prefix(self.answers(embeddings))
