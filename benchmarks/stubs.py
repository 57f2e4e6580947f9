"""Stubs for images and model, to measure or test the job itself: numbers as bytes, black crops, predictions of a moment.

python benchmarks/stubs.py FLAGS      # jobs/annotate.py with the stub of the model
"""

import sys
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pyarrow as pa

import pipeline.run.graph
import pipeline.stages.load
from pipeline.images.decode import Decoded, Decoder
from pipeline.images.fetch import Fetcher
from pipeline.stages import annotate
from pipeline.stages.annotate import AnnotatorSettings, planned_model
from pipeline.stages.load import Loader
from ugrie.model import checkpoint
from ugrie.model.prediction import Prediction
from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.template import Template


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


class Embeddings(np.ndarray):
    """Embeddings with the methods of a tensor that the annotator calls."""

    def cpu(self) -> "Embeddings":
        return self

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


class StubModel:
    """A model that needs no torch and starts at once. Its predictions follow from the pixels: equal crops have equal ones."""

    def __init__(self, config: checkpoint.Config):
        self.config = config

    gpu = None

    def load_encoder(self) -> "StubModel":
        return self

    def upload(self, crops: np.ndarray) -> np.ndarray:
        return crops

    def encode(self, batches: Iterable[np.ndarray]) -> Iterator[Embeddings]:
        """Yield the mean and the spread of each crop's colours, repeated: float32 [crops, embedding_dim], as exact as float16."""
        for crops in batches:
            colours = crops[:, ::8, ::8].reshape(len(crops), -1, 3) / 255
            found = np.concatenate([colours.mean(1) - 0.5, colours.std(1) - 0.25], 1)
            repeated = np.resize(found.T, (self.config.tower.embedding_dim, len(crops))).T
            yield repeated.astype(np.float16).astype(np.float32).view(Embeddings)

    def predict(self, embeddings: np.ndarray, schemes: tuple[str | ZeroShot, ...]) -> Prediction:
        asked = (each.scheme if isinstance(each, ZeroShot) else self.config.scheme(each) for each in schemes)
        template, probs = Template(tuple(asked)), {}
        for scheme in template.schemes:
            rng = np.random.default_rng(zlib.crc32(scheme.name.encode()))
            weights = rng.normal(size=(len(scheme.labels), embeddings.shape[1])).astype(np.float32)
            scores = 40 * np.asarray(embeddings) @ weights.T / embeddings.shape[1] ** 0.5
            shares = np.exp(scores - scores.max(1, keepdims=True))
            probs[scheme.name] = shares / shares.sum(1, keepdims=True)
        return Prediction(template, probs, {name: values.argmax(1) for name, values in probs.items()})


class Annotator(annotate.Annotator):
    """The annotator with the stub of the model. Ray shows it under the same name."""

    def __init__(self, settings: AnnotatorSettings):
        self.settings = settings
        self.model = StubModel(checkpoint.read_config(planned_model(settings)))  # type: ignore[assignment]
        settings.tracker.agree_on("batch_size", settings.batch_size or 1)
        self.device = threading.Lock()


def stub_model() -> None:
    """Make the runs of this process annotate with the stub of the model."""
    pipeline.run.graph.Annotator = Annotator  # type: ignore[misc]


def stub_all() -> None:
    """Make the runs of this process use all stubs."""
    pipeline.run.graph.Fetcher, pipeline.run.graph.Loader = Numbers, BlackLoader  # type: ignore[misc]
    stub_model()


if __name__ == "__main__":
    import benchmarks.stubs  # workers import the classes by this name
    from pipeline.commands.main import run

    benchmarks.stubs.stub_model()
    sys.exit(run(["annotate", *sys.argv[1:]]))
