"""Stubs for images and model, to measure the job itself: numbers as bytes, black crops, random predictions."""

import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

import pipeline.run.graph
import pipeline.stages.load
from pipeline.images.decode import Decoded, Decoder
from pipeline.images.fetch import Fetcher
from pipeline.stages.annotate import Annotator, AnnotatorSettings
from pipeline.stages.load import Loader
from ugrie.model import checkpoint
from ugrie.model.prediction import Prediction


class Numbers(Fetcher):
    """Returns an image's id as its bytes, so that no two images have equal bytes."""

    def fetch(self, rows: Sequence[dict]) -> Iterator[tuple[dict, bytes]]:
        return ((row, row["image_id"].to_bytes(8, "big", signed=True)) for row in rows)


class Black(Decoder):
    """Decodes every image to a black crop."""

    def __call__(self, data: bytes) -> Decoded:
        size = self.limits.crop_size
        return Decoded(np.zeros((size, size, 3), np.uint8), size, size)


class BlackLoader(Loader):
    def __call__(self, numbers: pa.Table) -> pa.Table:
        pipeline.stages.load.Decoder = Black  # type: ignore[misc]
        return super().__call__(numbers)


class Chance:
    """A model with random predictions: embeddings of one number, and random probabilities that add up to 1."""

    def __init__(self, config: checkpoint.Config):
        self.config = config

    def encode(self, batches: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
        return (torch.zeros(len(crops), 1) for crops in batches)

    def predict(self, embeddings: torch.Tensor, schemes: tuple[str, ...]) -> Prediction:
        template = self.config.template(schemes)
        rng = np.random.default_rng()
        labels = {scheme.name: len(scheme.labels) for scheme in template.schemes}
        probs = {name: rng.dirichlet(np.ones(count), len(embeddings)).astype(np.float32) for name, count in labels.items()}
        return Prediction(template, probs, {name: values.argmax(1) for name, values in probs.items()})


class ChanceAnnotator(Annotator):
    def __init__(self, settings: AnnotatorSettings):
        self.settings = settings
        self.model = Chance(checkpoint.read_config(checkpoint.find(settings.model)))
        self.device = threading.Lock()


def put_in() -> None:
    """Make the runs of this process use the stubs."""
    graph = pipeline.run.graph
    graph.Fetcher, graph.Loader, graph.Annotator = Numbers, BlackLoader, ChanceAnnotator  # type: ignore[misc]
