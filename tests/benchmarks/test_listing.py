"""benchmarks/listing.py: the keys that it makes, and that its contenders find them all."""

import importlib
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("naming", ["hashes", "numbers"])
def test_all_contenders_find_the_keys_that_were_made(s3, tmp_path, monkeypatch, naming):
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2] / "benchmarks")])
    listing = importlib.import_module("listing")
    listing.fill(s3, naming, 1200, tmp_path)
    found = [contender(s3, f"flat-{naming}") for contender in listing.CONTENDERS.values()]
    assert found == [sorted(f"flat-{naming}/{listing.NAMINGS[naming](i)}" for i in range(1200))] * 3
    assert s3.fs.info(f"{s3.bucket}/{found[0][7]}")["size"] == 100_000
