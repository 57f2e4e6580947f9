"""benchmarks/hotspots.py assigns a stack to a part of the job, by files that exist."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hotspots(monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT / "benchmarks")])
    return importlib.import_module("hotspots")


@pytest.mark.parametrize(
    ("stack", "part"),
    [
        ("Annotator.__call__ (pipeline/stages/annotate.py:70);Encoder._part (ugrie/vision/encoder.py:120);conv2d (nn.py:1)",
         "the tower"),
        ("Annotator.__call__ (pipeline/stages/annotate.py:70);fill (ugrie/model/slots.py:31);linear (torch/nn.py:1)",
         "mapper and template"),
        ("decode (pipeline/images/decode.py:74);crop (ugrie/vision/preprocess.py:57);resize (PIL/Image.py:1)",
         "decoding and cropping"),
        ("Loader.__call__ (pipeline/stages/load.py:60);Fetcher.fetch (pipeline/images/fetch.py:40);open (fsspec/local.py:9)", "fetching"),
        ("Fetcher.fetch (pipeline/images/fetch.py:40);ask (pipeline/storage/retry.py:30);get (pipeline/storage/client.py:75)", "fetching"),
        ("Loader._fetched (pipeline/stages/load.py:88)", "tables, hashes, claims, files"),
        ("main_loop (ray/worker.py:3);put (ray/_private/worker.py:700)", "Ray Data's and Ray's"),
        ("Loader.__call__ (pipeline/stages/load.py:60);get (queue.py:171);wait (threading.py:327)", None),
        ("run (thread.py:9);Annotator.__call__ (pipeline/stages/annotate.py:66)", None),
    ],
)  # fmt: skip
def test_a_stack_is_of_the_innermost_of_ugries_files_unless_it_waits(hotspots, stack, part):
    assert hotspots.part_of(stack) == part


def test_the_files_that_parts_are_told_by_are_there(hotspots):
    for file in (file for files in hotspots.PARTS.values() for file in files):
        assert (ROOT / file).exists()
