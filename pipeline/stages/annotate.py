"""The second operator: an actor that holds the model and annotates crops."""

import threading
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Precision
from pipeline.stages.model_files import local_folder, tower_file
from pipeline.stages.prediction_columns import PredictionColumns
from pipeline.stages.tracker import BlockTracker
from pipeline.storage.filesystem import Options
from pipeline.table.schema import Tables, expect
from ugrie.model import checkpoint
from ugrie.model.zero_shot import ZeroShot

if TYPE_CHECKING:
    from ugrie.vision.encoder import Encoder

TEMPLATES = 256  # filled at once, one for each image


@dataclass(frozen=True)
class AnnotatorSettings:
    model: str
    options: Options = field(repr=False)
    tower_weights: str | None
    schemes: tuple[str | ZeroShot, ...]  # `Tables.answered`
    tables: Tables
    run_id: str
    device: str
    precision: Precision
    threads: int | None
    batch_size: int | None
    block_rows: int
    tracker: BlockTracker


class Annotator:
    """Operator from `Tables.loaded` to `Tables.annotated`. The model is loaded once, when the actor starts.

    The actor takes two blocks at once: while one uses the device, the other is read and copied to it, or its table is built.
    """

    def __init__(self, settings: AnnotatorSettings):
        import torch

        from ugrie.model.model import UGRIE

        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.settings = settings
        folder = planned_model(settings)
        self.model = UGRIE.from_pretrained(folder, settings.device, planned_tower(settings, folder), settings.precision)
        encoder = self.model.load_encoder()
        encoder.batch_size = agreed_batch_size(settings, encoder)
        encoder.warm_up()
        if encoder.gpu is not None:
            # What a first prediction takes of the memory, it takes now.
            self.model.predict(torch.zeros(1, self.model.config.tower.embedding_dim, device="cuda"), settings.schemes)
            settings.tracker.agree_on("tf32", torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)
            if encoder.gpu.problem is not None:
                settings.tracker.agree_on("not_compiled", encoder.gpu.problem)
        self.device = threading.Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        tables = self.settings.tables
        loaded = expect(table, tables.loaded, "annotate").combine_chunks()
        block = loaded.column("block")[0].as_py()
        ok = np.flatnonzero(pc.equal(loaded.column("status"), "ok").to_numpy())
        crops = view(loaded.column("crop"), tables.crop_size)
        parts = [ok[start : start + TEMPLATES] for start in range(0, len(ok), TEMPLATES)]
        encoder = self.model.load_encoder()
        ahead = [encoder.upload(pick(crops, rows)) for rows in parts[:1]]
        with self.device:
            self.settings.tracker.enter(block, "being annotated")
            clock = time.perf_counter()
            batches = chain(ahead, (pick(crops, rows) for rows in parts[1:]))
            found = [(self.model.predict(encoded, self.settings.schemes), encoded.cpu().numpy()) for encoded in self.model.encode(batches)]
            seconds = (time.perf_counter() - clock) / len(loaded)
        if encoder.gpu is not None and (encoder.gpu.portions.was_full or self.model.portions.was_full):
            self.settings.tracker.agree_on("memory_was_full", True)
        if encoder.gpu is not None and encoder.gpu.overflowed:
            self.settings.tracker.agree_on("embedded_in_float32", True)
        predictions = PredictionColumns(tables, len(loaded))
        for rows, (prediction, embeddings) in zip(parts, found, strict=True):
            predictions.fill(rows, prediction, embeddings)
        columns = predictions.columns(self.settings.run_id)
        columns["annotate_seconds"] = pa.repeat(pa.scalar(seconds, pa.float32()), len(loaded))
        self.settings.tracker.enter(block, "annotated, and not yet written")
        schema = tables.annotated
        return pa.table([columns[n] if n in columns else loaded.column(n) for n in schema.names], schema)


def agreed_batch_size(settings: AnnotatorSettings, encoder: "Encoder") -> int:
    """Return the batch size asked for, or the best one that the first actor on this kind of device has measured.

    None is larger than what is embedded at once: a part that is smaller than a batch is padded on a GPU.
    """
    import torch

    from ugrie.vision.batch_size import best_batch_size

    setting = "batch_size"
    if settings.device == "cuda":
        card = torch.cuda.get_device_name()
        if settings.tracker.agree_on("card", card) != card:
            setting = f"batch_size on {card}"
    best = settings.batch_size or settings.tracker.settings().get(setting)
    if best is None:
        best = best_batch_size(encoder)
        if settings.device == "cuda":
            torch.cuda.empty_cache()  # others may share the card
    return settings.tracker.agree_on(setting, min(best, TEMPLATES, settings.block_rows))


def planned_model(settings: AnnotatorSettings) -> Path:
    """Return the model's folder on this worker. Raises RuntimeError where its digest is not that of the model in the plan."""
    folder = local_folder(settings.model, settings.options)
    if not settings.tables.model.endswith(f"@{checkpoint.digest(folder)}"):
        planned = settings.tables.model
        raise RuntimeError(f"{settings.model} on this worker is not the planned {planned}: put the same model on every worker")
    return folder


def planned_tower(settings: AnnotatorSettings, folder: Path) -> str | None:
    """Return the file of the tower's weights on this worker. Raises RuntimeError where the tower's digest is not that in the plan."""
    model = checkpoint.read_config(folder)
    weights = tower_file(model, settings.tower_weights, settings.options)
    found = checkpoint.tower_digest(folder, model, weights)
    if found != settings.tables.tower:
        differs = f"{weights or settings.model} on this worker holds the image tower {found}, not the planned {settings.tables.tower}"
        raise RuntimeError(f"{differs}: put the same file on every worker")
    return weights


def pick(crops: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the crops of these rows: a slice where they are consecutive, else a copy."""
    return crops[rows[0] : rows[-1] + 1] if rows[-1] - rows[0] + 1 == len(rows) else crops[rows]


def view(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """Return a column's crops as uint8 [n, size, size, 3]: read-only memory of Ray's object store, which is not copied."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = 3 * size**2
    pixels = np.frombuffer(array.buffers()[1], np.uint8, len(array) * width, array.offset * width)
    return pixels.reshape(-1, size, size, 3)
