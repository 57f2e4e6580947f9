"""The second operator: an actor that holds the model and turns crops into the rows that are written."""

import datetime as dt
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.board import Board
from pipeline.config import Precision
from pipeline.storage import Options
from pipeline.table import Tables, expect, scheme_type
from pipeline.weights import local_folder
from ugrie import checkpoint
from ugrie.annotation import Prediction
from ugrie.schemes import Scheme

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

        from ugrie.model import UGRIE
        from ugrie.probe import best_batch_size

        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.settings = settings
        folder = local_folder(settings.model, settings.options)
        if not settings.tables.model.endswith(f"@{checkpoint.digest(folder)}"):
            raise RuntimeError(f"{settings.model} on this worker is not {settings.tables.model}, with which the run was planned")
        self.model = UGRIE.from_pretrained(folder, settings.device, settings.tower_weights, settings.precision)
        encoder = self.model.load_encoder()
        encoder.batch_size = settings.board.settle("batch_size", settings.batch_size or best_batch_size(encoder))
        self.device = threading.Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        tables = self.settings.tables
        loaded = expect(table, tables.loaded, "annotate").combine_chunks()
        block = loaded.column("block")[0].as_py()
        ok = np.flatnonzero(pc.equal(loaded.column("status"), "ok").to_numpy())
        crops = view(loaded.column("crop"), tables.crop_size)
        probs = {s.name: np.full((len(loaded), len(s.labels)), np.nan, np.float32) for s in tables.schemes}
        choices = {s.name: np.full(len(loaded), -1) for s in tables.schemes}
        sentences: list[str | None] = [None] * len(loaded)
        embeddings = np.zeros((len(loaded), tables.embedding_dim or 0), np.float16)
        with self.device:
            self.settings.board.enter(block, "being annotated")
            clock = time.perf_counter()
            parts = [ok[start : start + FILLED_AT_ONCE] for start in range(0, len(ok), FILLED_AT_ONCE)]
            for rows, encoded in zip(parts, self.model.encode(pick(crops, rows) for rows in parts), strict=True):
                prediction = self.model.predict(encoded, self.settings.schemes)
                self._take(prediction, rows, probs, choices, sentences)
                if tables.embedding_dim is not None:
                    embeddings[rows] = encoded.cpu().numpy()
            seconds = (time.perf_counter() - clock) / len(loaded)
        columns: dict[str, pa.Array] = {s.name: scheme_column(s, probs[s.name], choices[s.name]) for s in tables.schemes}
        missing = np.ones(len(loaded), bool)
        missing[ok] = False
        if tables.embedding_dim is not None:
            flat = pa.array(embeddings.reshape(-1))
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, tables.embedding_dim, mask=pa.array(missing))
        count = len(loaded)
        columns |= {
            "sentence": pa.array(sentences, pa.string()),
            "model": pa.repeat(tables.model, count),
            "run_id": pa.repeat(self.settings.run_id, count),
            "annotated_at": pa.array([dt.datetime.now(dt.UTC)] * count, pa.timestamp("us", "UTC")),
        }
        columns["annotate_seconds"] = pa.repeat(pa.scalar(seconds, pa.float32()), count)
        self.settings.board.enter(block, "annotated, and not yet written")
        schema = tables.annotated
        return pa.table([columns[n] if n in columns else loaded.column(n) for n in schema.names], schema)

    @staticmethod
    def _take(prediction: Prediction, rows: np.ndarray, probs: dict, choices: dict, sentences: list) -> None:
        for name in probs:
            probs[name][rows] = prediction.probs[name]
            choices[name][rows] = prediction.choices[name]
        for row, sentence in zip(rows, prediction.sentences(), strict=True):
            sentences[row] = sentence


def pick(crops: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The crops of these rows; a slice, not a copy, where they stand together."""
    return crops[rows[0] : rows[-1] + 1] if rows[-1] - rows[0] + 1 == len(rows) else crops[rows]


def view(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """The crops of a column as uint8 [n, size, size, 3], without a copy: read-only memory of Ray's object store."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    width = 3 * size**2
    pixels = np.frombuffer(array.buffers()[1], np.uint8, len(array) * width, array.offset * width)
    return pixels.reshape(-1, size, size, 3)


def scheme_column(scheme: Scheme, probs: np.ndarray, choices: np.ndarray) -> pa.StructArray:
    """A scheme's struct column, null where there is no choice (-1)."""
    missing = choices < 0
    kind = scheme_type(scheme)
    known = np.where(missing[:, None], 0, probs)
    offsets = np.arange(len(probs) + 1, dtype=np.int32) * probs.shape[1]
    children = {"probs": pa.ListArray.from_arrays(pa.array(offsets), pa.array(known.reshape(-1), pa.float32()))}
    if scheme.kind == "ordinal":
        children["value"] = pa.array(known @ np.asarray(scheme.values, np.float32), pa.float32())
    else:
        children["label"] = pa.array(scheme.label_names, pa.string()).take(pa.array(np.maximum(choices, 0)))
        children["score"] = pa.array(np.take_along_axis(known, np.maximum(choices, 0)[:, None], 1)[:, 0], pa.float32())
    fields = [children[field.name] for field in kind]
    return pa.StructArray.from_arrays(fields, fields=list(kind), mask=pa.array(missing))
