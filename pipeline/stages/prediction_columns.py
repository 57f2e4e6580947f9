"""Builds the columns of the table from the model's predictions for a block, which come batch by batch."""

import datetime as dt

import numpy as np
import pyarrow as pa

from pipeline.table.schema import Tables, scheme_type
from ugrie.model.prediction import Prediction
from ugrie.schemes.scheme import Scheme

FLOAT16_MAX = float(np.finfo(np.float16).max)


class PredictionColumns:
    """The predictions for `count` images. An image without one is null in every column."""

    def __init__(self, tables: Tables, count: int):
        self.tables = tables
        self.probs = {scheme.name: np.full((count, len(scheme.labels)), np.nan, np.float32) for scheme in tables.schemes}
        self.choices = {scheme.name: np.full(count, -1) for scheme in tables.schemes}
        self.sentences: list[str | None] = [None] * count
        self.embeddings = np.zeros((count, tables.embedding_dim or 0), np.float16)
        self.missing = np.ones(count, bool)

    def fill(self, rows: np.ndarray, prediction: Prediction, embeddings: np.ndarray) -> None:
        """Set the predictions of the images at `rows`, whose embeddings are float [rows, embedding_dim]."""
        for name in self.probs:
            self.probs[name][rows] = prediction.probs[name]
            self.choices[name][rows] = prediction.choices[name]
        for row, sentence in zip(rows.tolist(), prediction.sentences(), strict=True):
            self.sentences[row] = sentence
        if self.tables.embedding_dim is not None:
            # Of an embedding only the direction counts. One that float16 can't hold is made shorter.
            self.embeddings[rows] = embeddings / np.maximum(1, np.abs(embeddings).max(1, keepdims=True, initial=0) / FLOAT16_MAX)
        self.missing[rows] = False

    def columns(self, run_id: str) -> dict[str, pa.Array]:
        """Return by name the columns of the output that the model and the run determine."""
        count = len(self.missing)
        columns: dict[str, pa.Array] = {s.name: scheme_column(s, self.probs[s.name], self.choices[s.name]) for s in self.tables.schemes}
        if self.tables.zero_shot:
            names = list(self.tables.zero_shot)
            columns["zero_shot"] = pa.array([None if missing else names for missing in self.missing.tolist()], pa.list_(pa.string()))
        if self.tables.embedding_dim is not None:
            flat = pa.array(self.embeddings.reshape(-1))
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, self.tables.embedding_dim, mask=pa.array(self.missing))
        return columns | {
            "sentence": pa.array(self.sentences, pa.string()),
            "model": pa.repeat(self.tables.model, count),
            "run_id": pa.repeat(run_id, count),
            "annotated_at": pa.array([dt.datetime.now(dt.UTC)] * count, pa.timestamp("us", "UTC")),
        }


def scheme_column(scheme: Scheme, probs: np.ndarray, choices: np.ndarray) -> pa.StructArray:
    """Return a scheme's struct column, null where no label was chosen (-1)."""
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
