"""The second operator: an actor that holds the model and turns crops into the rows that are written."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Precision
from pipeline.stages.model_files import local_folder, local_tower
from pipeline.stages.prediction_columns import Answers
from pipeline.stages.tracker import Board
from pipeline.storage.filesystem import Options
from pipeline.table.schema import Tables, expect
from ugrie.model import checkpoint

FILLED_AT_ONCE = 256  # templates


@dataclass(frozen=True)
class AnnotatorSettings:
    model: str
    options: Options = field(repr=False)
    tower_weights: str | None
    schemes: tuple[str, ...]
    tables: Tables
    run_id: str
    device: str
    precision: Precision
    threads: int | None
    batch_size: int | None
    board: Board


class Annotator:
    """`Tables.loaded` -> `Tables.annotated`. The model is loaded once, when the actor starts.

    Two blocks may be in it at once: while one has the device, the other's tables are read and made.
    """

    def __init__(self, settings: AnnotatorSettings):
        import torch

        from ugrie.model.model import UGRIE
        from ugrie.vision.batch_size import best_batch_size

        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.settings = settings
        tower = local_tower(settings.tower_weights, settings.options)
        self.model = UGRIE.from_pretrained(planned(settings), settings.device, tower, settings.precision)
        encoder = self.model.load_encoder()
        encoder.batch_size = settings.board.settle("batch_size", settings.batch_size or best_batch_size(encoder))
        self.device = threading.Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        tables = self.settings.tables
        loaded = expect(table, tables.loaded, "annotate").combine_chunks()
        block = loaded.column("block")[0].as_py()
        ok = np.flatnonzero(pc.equal(loaded.column("status"), "ok").to_numpy())
        crops = view(loaded.column("crop"), tables.crop_size)
        answers = Answers(tables, len(loaded))
        with self.device:
            self.settings.board.enter(block, "being annotated")
            clock = time.perf_counter()
            parts = [ok[start : start + FILLED_AT_ONCE] for start in range(0, len(ok), FILLED_AT_ONCE)]
            for rows, encoded in zip(parts, self.model.encode(pick(crops, rows) for rows in parts), strict=True):
                answers.take(rows, self.model.predict(encoded, self.settings.schemes), encoded.cpu().numpy())
            seconds = (time.perf_counter() - clock) / len(loaded)
        columns = answers.columns(self.settings.run_id)
        columns["annotate_seconds"] = pa.repeat(pa.scalar(seconds, pa.float32()), len(loaded))
        self.settings.board.enter(block, "annotated, and not yet written")
        schema = tables.annotated
        return pa.table([columns[n] if n in columns else loaded.column(n) for n in schema.names], schema)


def planned(settings: AnnotatorSettings) -> Path:
    """The model's folder on this worker. Raises RuntimeError if it is another model than the run was planned with."""
    folder = local_folder(settings.model, settings.options)
    if not settings.tables.model.endswith(f"@{checkpoint.digest(folder)}"):
        raise RuntimeError(f"{settings.model} on this worker is not {settings.tables.model}, with which the run was planned")
    return folder


def pick(crops: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The crops of these rows; a slice, not a copy, where they stand together."""
    return crops[rows[0] : rows[-1] + 1] if rows[-1] - rows[0] + 1 == len(rows) else crops[rows]


def view(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """The crops of a column as uint8 [n, size, size, 3], without a copy: read-only memory of Ray's object store."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = 3 * size**2
    pixels = np.frombuffer(array.buffers()[1], np.uint8, len(array) * width, array.offset * width)
    return pixels.reshape(-1, size, size, 3)
