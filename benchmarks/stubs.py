"""What stands in for images and model where the job itself is measured: bytes that are a number, a black crop, answers drawn at random."""

import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

import pipeline.run.driver
import pipeline.stages.load
from pipeline.images.decode import Decoded, Decoder
from pipeline.images.fetch import Fetcher
from pipeline.stages.annotate import Annotator, AnnotatorSettings
from pipeline.stages.load import Loader
from ugrie.model import checkpoint
from ugrie.model.prediction import Prediction


class Numbers(Fetcher):
    """Every image's bytes are its id, so that no two are the same."""

    def fetch(self, rows: Sequence[dict]) -> Iterator[tuple[dict, bytes]]:
        return ((row, row["image_id"].to_bytes(8, "big", signed=True)) for row in rows)


class Black(Decoder):
    def __call__(self, data: bytes) -> Decoded:
        size = self.limits.crop_size
        return Decoded(np.zeros((size, size, 3), np.uint8), size, size)


class BlackLoader(Loader):
    def __call__(self, numbers: pa.Table) -> pa.Table:
        pipeline.stages.load.Decoder = Black  # type: ignore[misc]
        return super().__call__(numbers)


class Chance:
    """A model that answers by chance: embeddings of one number, and probabilities of every label that come to 1."""

    def __init__(self, config: checkpoint.Config):
        self.config = config

    def encode(self, batches: Iterable[np.ndarray]) -> Iterator[torch.Tensor]:
        return (torch.zeros(len(crops), 1) for crops in batches)

    def predict(self, embeddings: torch.Tensor, schemes: tuple[str, ...]) -> Prediction:
        template = self.config.template(schemes)
        draw = np.random.default_rng()
        labels = {scheme.name: len(scheme.labels) for scheme in template.schemes}
        probs = {name: draw.dirichlet(np.ones(count), len(embeddings)).astype(np.float32) for name, count in labels.items()}
        return Prediction(template, probs, {name: values.argmax(1) for name, values in probs.items()})


class ChanceAnnotator(Annotator):
    def __init__(self, settings: AnnotatorSettings):
        self.settings = settings
        self.model = Chance(checkpoint.read_config(checkpoint.find(settings.model)))
        self.device = threading.Lock()


def put_in() -> None:
    """Makes this process's runs use them."""
    pipeline.run.driver.Fetcher, pipeline.run.driver.Loader, pipeline.run.driver.Annotator = Numbers, BlackLoader, ChanceAnnotator  # type: ignore[misc]
