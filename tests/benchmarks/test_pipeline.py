"""The photos of the corpora, and the bare loop's rows compared with UGRIE's own."""

import importlib
import io
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ugrie import UGRIE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a module of benchmarks/ or of its contenders."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "contenders")])
    return importlib.import_module


def test_photos_are_told_apart_by_their_bytes_and_not_by_their_pixels(benchmark, images, tmp_path):
    benchmark("photos").corpus([images.jpeg(1), images.jpeg(2)], 5, tmp_path / "in")
    files = [path.read_bytes() for path in sorted((tmp_path / "in").iterdir())]
    assert len(set(files)) == 5
    pixels = [np.asarray(Image.open(io.BytesIO(data))) for data in files]
    assert all((pixels[i] == pixels[i % 2]).all() for i in range(5))


def test_the_bare_loop_says_what_ugrie_says(benchmark, images, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    files = [tmp_path / "in" / f"{i}.jpg" for i in range(5)]
    for i, file in enumerate(files):
        file.write_bytes(images.jpeg(i))
    monkeypatch.setattr(sys, "argv", ["bare.py", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "rows.parquet")])
    benchmark("bare").main()
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [Path(row["uri"]).name for row in rows] == [file.name for file in files]
    assert [row["sentence"] for row in rows] == [annotation.sentence for annotation in UGRIE.from_pretrained("ugrie-tiny").annotate(files)]
