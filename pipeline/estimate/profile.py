"""Profiles a sample: annotates it in this process, without Ray, and measures the time of each stage."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config import AnnotateConfig, check_precision
from pipeline.errors import ImageError
from pipeline.images.decode import Decoder, Limits
from pipeline.images.fetch import Fetcher
from pipeline.stages.annotate import TEMPLATES
from pipeline.stages.model_files import local_folder, tower_file
from pipeline.table.schema import Tables
from ugrie.model import checkpoint

MIN_CROPS = 32  # that the model's time is measured with; fewer are repeated


@dataclass(frozen=True)
class Profile:
    """Seconds of each stage, and the statuses of the sample. Fetching and decoding are per core, annotating is per device."""

    status: dict[str, int]
    failures: list[str]
    bytes: np.ndarray  # of each image that was fetched
    fetch_core: float  # CPU seconds per image
    fetch_wait: float  # elapsed seconds per image, with as many fetched at once as a loader does
    decode: np.ndarray  # CPU seconds of each image that was decoded
    annotate: float  # seconds per image
    device: str
    cores: int  # of this machine, all used by a tower on CPU
    batch_size: int


def profile_images(config: AnnotateConfig, tables: Tables, rows: list[dict[str, Any]]) -> Profile:
    """Fetch, decode and annotate the images of manifest rows. Raises StorageError if the credentials are refused."""
    decoder = Decoder(Limits.of(config, tables.crop_size))
    status: Counter[str] = Counter()
    failures, crops, sizes, decode = list[str](), list[np.ndarray](), list[int](), list[float]()
    wall_start, cpu_start, decoding = time.perf_counter(), time.process_time(), 0.0
    for row, data in Fetcher.of(config).fetch(rows):
        start = time.thread_time()
        try:
            if isinstance(data, ImageError):
                raise data
            sizes.append(len(data))
            crops.append(decoder(data).crop)
            decode.append(time.thread_time() - start)
            status["ok"] += 1
        except ImageError as error:
            status[error.status] += 1
            failures.append(f"{row['uri']}  {error.status}: {error}")
        decoding += time.thread_time() - start
    fetch_wait, fetch_core = time.perf_counter() - wall_start - decoding, time.process_time() - cpu_start - decoding
    device, batch_size, annotate = _time_model(config, tables, crops)
    return Profile(
        status=dict(status.most_common()),
        failures=failures,
        bytes=np.array(sizes, np.int64),
        fetch_core=fetch_core / max(len(rows), 1),
        fetch_wait=fetch_wait / max(len(rows), 1),
        decode=np.array(decode),
        annotate=annotate,
        device=device,
        cores=os.cpu_count() or 1,
        batch_size=batch_size,
    )


def _time_model(config: AnnotateConfig, tables: Tables, crops: list[np.ndarray]) -> tuple[str, int, float]:
    """Return the model's device, the tower's batch size, and seconds per image; of blank crops if there are none."""
    import torch

    from ugrie.model.model import UGRIE
    from ugrie.vision.batch_size import best_batch_size

    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    check_precision(config, device)
    folder = local_folder(config.model, config.storage_options)
    tower = tower_file(checkpoint.read_config(folder), config.tower_weights, config.storage_options)
    model = UGRIE.from_pretrained(folder, device, tower, config.precision)
    encoder = model.load_encoder()
    encoder.batch_size = min(config.batch_size or best_batch_size(encoder), TEMPLATES)
    encoder.warm_up()
    crops = crops or [np.zeros((tables.crop_size, tables.crop_size, 3), np.uint8)]
    pixels = np.stack([crops[i % len(crops)] for i in range(max(len(crops), MIN_CROPS, encoder.batch_size))])
    seconds = 0.0
    for _ in range(2):  # the first pass warms up
        start = time.perf_counter()
        for embeddings in model.encode(pixels[first : first + TEMPLATES] for first in range(0, len(pixels), TEMPLATES)):
            model.predict(embeddings, tables.answered)
        seconds = time.perf_counter() - start
    return device, encoder.batch_size, seconds / len(pixels)
