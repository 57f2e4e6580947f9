"""Settings of runs, and inputs of every kind."""

import pyarrow as pa
import pytest

from pipeline.config import AnnotateConfig
from tests.plugins import planned
from tests.plugins.planned import folder, uris


@pytest.fixture
def config(tmp_path):
    def make(source, **settings):
        return AnnotateConfig(**{"input": str(source), "output": str(tmp_path / "out"), "run_id": "r", "block_rows": 3} | settings)

    return make


@pytest.fixture
def iceberg(catalog):
    def write_table(source):
        table = catalog.create_table("lake.posts", pa.schema([("uri", pa.string())]), location=f"file://{source}")
        for count in (9, 12, 10):
            table.append(pa.table({"uri": uris(count)}))
        return "iceberg://prod/lake.posts"

    return write_table


@pytest.fixture
def bucket(s3):
    def write_objects(source):
        for path in folder(source).rglob("*"):
            if path.is_file():
                s3.fs.pipe_file(f"{s3.bucket}/planned/{path.relative_to(source)}", path.read_bytes())
        return f"s3://{s3.bucket}/planned/"

    return write_objects


@pytest.fixture
def shards(tar):
    def write_shards(source):
        source.mkdir()
        for number in range(5):
            tar(source / f"{number}.tar", {f"{i}.{end}": b"x" for i in range(number + 1) for end in ("jpg", "json")})
        return source

    return write_shards


@pytest.fixture(params=["folder", "csv", "parquet", "parquet_with_bytes", "shards"])
def source(request, tmp_path, shards):
    return (shards if request.param == "shards" else getattr(planned, request.param))(tmp_path / "in")
