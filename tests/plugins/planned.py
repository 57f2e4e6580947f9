"""Inputs of every kind to be planned, runs that were committed before, and what two plans have in common."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.table.schema import SCHEMA_VERSION

COUNTS = ("rows", "block_rows", "listed", "known", "retried", "left_out", "suppressed")


def write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def folder(source: Path) -> Path:
    for name in ("a/1.jpg", "a/2.png", "a/b/3.jpg", "a/b/c/4.jpg", "b/5.webp", "b/6.jpg", "c/x/7.jpg", "c/y/8.jpg", "9.jpg", "z/10"):
        write(source / name, name)
    for name in ("a/.hidden", "c/_SUCCESS", "c/_temporary/0/11.jpg", "README.md", "a/b/notes.txt", "z/list.csv"):
        write(source / name, "x")
    return source


def uris(count: int, repeats: int = 5) -> list[str]:
    return [f"s3://bucket/{i:03}.jpg" for i in range(count)] + [f"s3://bucket/{i:03}.jpg" for i in range(0, count, repeats)]


def csv(source: Path) -> Path:
    for number in range(3):
        write(source / f"{number}.csv", "\n".join(["uri", *uris(9 + number)]))
    write(source / "README.md", "tables")
    return source


def parquet(source: Path) -> Path:
    source.mkdir()
    for number, count in enumerate((3, 40, 4, 31)):
        pq.write_table(pa.table({"uri": uris(count)}), source / f"{number}.parquet", row_group_size=4)
    return source


def parquet_with_bytes(source: Path) -> Path:
    source.mkdir()
    pq.write_table(pa.table({"uri": [bytes([i]) * 90 for i in range(20)]}), source / "x.parquet", row_group_size=3)
    return source


def delta(source: Path) -> Path:
    for count in (9, 12, 10):
        deltalake.write_deltalake(source, pa.table({"uri": uris(count), "n": range(len(uris(count)))}), mode="append")
    deltalake.DeltaTable(source).delete("n < 3")
    return source


def manifest(plan: Any) -> pa.Table:
    """All images of a plan, in order. Ray, which this imports, reads its token first (tests/conftest.py)."""
    from tests.plugins import plans

    return plans.manifest(plan)


def check_same(by_driver: Any, by_cluster: Any) -> None:
    assert [getattr(by_cluster.manifest, name) for name in COUNTS] == [getattr(by_driver.manifest, name) for name in COUNTS]
    assert by_cluster.todo.tolist() == by_driver.todo.tolist()
    if by_driver.manifest.rows:
        assert manifest(by_cluster).equals(manifest(by_driver))


def commit(plan: Any, tmp_path: Path, model: Any, statuses: Sequence[str]) -> None:
    """Commit a run with a part of a plan's images."""
    ids = manifest(plan)["image_id"].to_pylist()[::2]
    record = {
        "run_id": "earlier",
        "schema_version": SCHEMA_VERSION,
        "model": model.model,
        "tower": model.tower,
        "date": "2026-01-02",
        "finished_at": plan.started_at.isoformat(),
        "schemes": {scheme.name: scheme.kind for scheme in model.schemes},
        "counts": {"rows": len(ids)},
        "files": ["annotations/dt=2026-01-02/part-earlier-00000000-00000.parquet"],
        "config": {},
    }
    table = pa.table({"image_id": ids, "status": [statuses[i % len(statuses)] for i in range(len(ids))]})
    path = tmp_path / "out" / record["files"][0]
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
    write(tmp_path / "out" / "runs" / "earlier.json", json.dumps(record))
