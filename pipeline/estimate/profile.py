"""Some images annotated for real, in this process and without Ray: what each stage takes, and what comes of them."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config import AnnotateConfig
from pipeline.errors import ImageError
from pipeline.images.decode import Decoder, Limits
from pipeline.images.fetch import Fetcher
from pipeline.stages.model_files import local_folder, local_tower
from pipeline.table.schema import Tables

ENOUGH = 32  # crops that the model's time is taken of; fewer are repeated


@dataclass(frozen=True)
class Trial:
    """What the sample took, in seconds. Fetching and decoding are of a core, annotating is of a whole device."""

    status: dict[str, int]
    failures: list[str]
    bytes: np.ndarray  # of each image that came
    fetch_core: float  # an image; of a core, and not of waiting
    fetch_wait: float  # an image, with as many under way at once as a loader has
    decode: np.ndarray  # of each image that could be decoded
    annotate: float  # an image
    device: str
    cores: int  # that the tower had, on a CPU
    batch_size: int


def try_out(config: AnnotateConfig, tables: Tables, rows: list[dict[str, Any]]) -> Trial:
    """Fetches, decodes and annotates the images of manifest rows. Raises StorageError where the credentials are refused."""
    decoder = Decoder(Limits.of(config, tables.crop_size))
    status: Counter[str] = Counter()
    failures, crops, sizes, decode = list[str](), list[np.ndarray](), list[int](), list[float]()
    clock, cpu, decoding = time.perf_counter(), time.process_time(), 0.0
    for row, data in Fetcher.of(config).fetch(rows):
        began = time.thread_time()
        try:
            if isinstance(data, ImageError):
                raise data
            sizes.append(len(data))
            crops.append(decoder(data).crop)
            decode.append(time.thread_time() - began)
            status["ok"] += 1
        except ImageError as error:
            status[error.status] += 1
            failures.append(f"{row['uri']}  {error.status}: {error}")
        decoding += time.thread_time() - began
    waited, worked = time.perf_counter() - clock - decoding, time.process_time() - cpu - decoding
    device, batch_size, annotate = _annotating(config, tables, crops)
    return Trial(
        status=dict(status.most_common()),
        failures=failures,
        bytes=np.array(sizes, np.int64),
        fetch_core=worked / max(len(rows), 1),
        fetch_wait=waited / max(len(rows), 1),
        decode=np.array(decode),
        annotate=annotate,
        device=device,
        cores=os.cpu_count() or 1,
        batch_size=batch_size,
    )


def _annotating(config: AnnotateConfig, tables: Tables, crops: list[np.ndarray]) -> tuple[str, int, float]:
    """Where the model ran, the tower's batch size, and seconds an image."""
    import torch

    from ugrie.model.model import UGRIE
    from ugrie.vision.batch_size import best_batch_size

    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    folder = local_folder(config.model, config.storage_options)
    model = UGRIE.from_pretrained(folder, device, local_tower(config.tower_weights, config.storage_options), config.precision)
    encoder = model.load_encoder()
    encoder.batch_size = config.batch_size or best_batch_size(encoder)
    schemes = [scheme.name for scheme in tables.schemes]
    some = crops or [np.zeros((tables.crop_size, tables.crop_size, 3), np.uint8)]
    pixels = np.stack([some[i % len(some)] for i in range(max(len(some), ENOUGH, encoder.batch_size))])
    seconds = []
    for _ in range(2):  # the first one warms up
        clock = time.perf_counter()
        for embeddings in model.encode([pixels]):
            model.predict(embeddings, schemes)
        seconds.append(time.perf_counter() - clock)
    return device, encoder.batch_size, seconds[-1] / len(pixels)
