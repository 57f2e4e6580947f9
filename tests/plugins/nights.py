"""Synthetic committed runs: rows of random labels in the form that a run writes, without a model and without Ray."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Failure = tuple[str, str, str]  # URI, status, message


def write_night(
    output: Path,
    date: str,
    images: Sequence[tuple[str, bytes]],
    failures: Sequence[Failure] = (),
    lean: float = 1.0,
    schemes: Sequence[str] = ("polarity3", "polarity2", "valence", "arousal"),
    parts: int = 1,
    group_rows: int = 1000,
    embeddings: np.ndarray | None = None,
    **changes: Any,
) -> Any:
    """Write a run with a row for each image. The larger `lean`, the more often a scheme's last labels occur.

    `embeddings` are float16 [images, dim]; by default none are kept.
    """
    from pipeline.config import AnnotateConfig
    from pipeline.stages.prediction_columns import scheme_column
    from pipeline.table import stats
    from pipeline.table.run_record import RunRecord
    from pipeline.table.schema import SCHEMA_VERSION, Tables
    from ugrie.schemes.scheme import load_scheme

    tables = Tables(
        tuple(map(load_scheme, schemes)), 224, None if embeddings is None else embeddings.shape[1], "made-up@0123", tower="0123"
    )
    run_id = changes.get("run_id", f"night-{date}")
    rng, rows = np.random.default_rng(int(date.replace("-", ""))), [*images, *failures]
    ok = np.arange(len(rows)) < len(images)
    columns: dict[str, Any] = {
        "image_id": pa.array(rng.integers(2**62, size=len(rows))),
        "uri": [row[0] for row in rows],
        "content_hash": [hashlib.sha256(data).hexdigest() for _, data in images] + [None] * len(failures),
        "status": ["ok"] * len(images) + [status for _, status, _ in failures],
        "error": [None] * len(images) + [message for _, _, message in failures],
        "model": [tables.model] * len(rows),
        "run_id": [run_id] * len(rows),
        "annotated_at": pa.array([0] * len(rows), pa.timestamp("us", "UTC")),
    }
    for scheme in tables.schemes:
        probs = rng.dirichlet(np.geomspace(1, lean, len(scheme.labels)), len(rows)).astype(np.float32)
        columns[scheme.name] = scheme_column(scheme, probs, np.where(ok, probs.argmax(1), -1))
    if embeddings is not None:
        flat = np.concatenate([embeddings, np.zeros((len(failures), embeddings.shape[1]), np.float16)]).reshape(-1)
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), embeddings.shape[1], mask=pa.array(~ok))
    table = pa.table([columns.get(f.name, pa.nulls(len(rows), f.type)) for f in tables.output], tables.output)
    names = [f"annotations/dt={date}/part-{run_id}-00000000-{i:05}.parquet" for i in range(parts)]
    for name, part in zip(names, np.array_split(np.arange(len(rows)), parts), strict=True):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.take(part), output / name, row_group_size=group_rows)
    labels = {scheme.name: stats.count_labels(scheme, table[scheme.name]) for scheme in tables.schemes}
    sums = {scheme.name: stats.sum_values(table[scheme.name]) for scheme in tables.schemes if scheme.kind == "ordinal"}
    config = AnnotateConfig(
        input=changes.pop("input", str(output)), output=str(output), run_id=run_id, date=date, **changes.pop("config", {})
    )
    record = {
        "run_id": run_id,
        "schema_version": SCHEMA_VERSION,
        "model": tables.model,
        "tower": tables.tower,
        "precision": "fp32",
        "date": date,
        "started_at": f"{date}T01:00:00+00:00",
        "finished_at": f"{date}T01:02:00+00:00",
        "input": config.input,
        "schemes": {scheme.name: scheme.kind for scheme in tables.schemes},
        "counts": {
            "listed": len(rows),
            "known": 0,
            "rows": len(rows),
            "status": dict(Counter(columns["status"]).most_common()),
            "reposts": {"run": 0, "earlier": 0},
            "labels": labels,
            "sums": sums,
        },
        "files": names,
        "timings": {
            "plan_seconds": 1.5,
            "ray_seconds": 4.0,
            "annotate_seconds": 110.0,
            "commit_seconds": 4.5,
            "all_fetch_seconds": 30.0,
            "all_decode_seconds": 60.0,
            "all_annotate_seconds": 200.0,
            "first_block_seconds": 8.0,
            "images_per_second": 12.5,
            "annotators_busy": 0.97,
            "loaders_busy": 0.4,
        },
        "tuning": {"device": "cpu", "batch_size": 16},
        "config": config.public(),
    }
    record |= changes
    (output / "runs").mkdir(exist_ok=True)
    (output / "runs" / f"{run_id}.json").write_text(json.dumps(record))
    return RunRecord.model_validate(record)


@pytest.fixture(scope="session")
def night() -> Any:
    return write_night
