"""Settings of a run over the corpus, and committed runs beside it, for tests of what is planned."""

import datetime as dt
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.table.schema import SCHEMA_VERSION
from ugrie.model import checkpoint


@pytest.fixture
def config(corpus, tmp_path):
    def make(**settings):
        return AnnotateConfig(**{"input": str(corpus.folder), "output": str(tmp_path / "out"), "run_id": "r", "block_rows": 9} | settings)

    return make


@pytest.fixture
def commit(tmp_path):
    """Return a function that commits a run whose table has these IDs, by the tower of ugrie-tiny unless it names another."""
    folder = checkpoint.find("ugrie-tiny")
    tower = checkpoint.tower_digest(folder, checkpoint.read_config(folder))

    def write(
        run_id, ids, model, schemes=("polarity3", "polarity2", "mikels8", "valence", "arousal"), status="ok", days_ago=30, **settings
    ):
        file = f"annotations/dt=2026-01-02/part-{run_id}-00000000-00000.parquet"
        record = {
            "run_id": run_id,
            "schema_version": settings.pop("schema_version", SCHEMA_VERSION),
            "model": model,
            "tower": settings.pop("tower", tower),
            "date": "2026-01-02",
            "finished_at": (dt.datetime.now(dt.UTC) - dt.timedelta(days=days_ago)).isoformat(),
        }
        record |= {"schemes": dict.fromkeys(schemes, "ordinal"), "counts": {"rows": len(ids)}, "files": [file], "config": settings}
        for name in (file, f"runs/{run_id}.json"):
            (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image_id": pa.array(ids, pa.int64()), "status": [status] * len(ids)}), tmp_path / "out" / file)
        (tmp_path / "out" / "runs" / f"{run_id}.json").write_text(json.dumps(record))

    return write
