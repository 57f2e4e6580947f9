"""Each process of a run imports what it runs and nothing else: on a small machine, imports are most of a run's start."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# Libraries that take a tenth of a second or more each, and the compiler of torch. Not pandas: pyarrow and Ray Data import it themselves.
SLOW = {
    *("torch", "torch._dynamo", "torchvision", "timm", "open_clip", "transformers", "sympy", "onnxruntime"),
    *("polars", "duckdb", "scipy", "sklearn", "matplotlib", "altair", "vl_convert", "ray.data"),
    *("s3fs", "botocore", "aiobotocore", "aiohttp", "deltalake", "pyiceberg", "sqlalchemy"),
}
SETTINGS = 'AnnotateConfig(input="in", output="out")'
PLAN = f"""
from pathlib import Path
from PIL import Image
from pipeline.config import AnnotateConfig
Path("in").mkdir()
Image.new("RGB", (60, 40)).save("in/a.png")
from pipeline.run.driver import prepare
plan = prepare({SETTINGS})
assert plan.manifest.rows == 1
"""
OPERATORS = f"""
{PLAN}
import pyarrow as pa
from pipeline.run.resources import Allocation
allocation = Allocation("cpu", actors=1, least_actors=1, actor_cpus=1, actor_gpus=0, threads=1, loaders=1, load=1, write=1)
from pipeline.stages.dedup import Deduplicator
from pipeline.stages.load import Loader
from pipeline.stages.tracker import BlockTracker
from pipeline.stages.write import BlockWriter
from pipeline.images.decode import Limits
from pipeline.images.fetch import Fetcher
def load():
    limits = Limits.of(plan.config, plan.tables.crop_size)
    loader = Loader(output=plan.output, manifest=plan.manifest, fetcher=Fetcher.of(plan.config), tables=plan.tables, limits=limits,
                    tracker=BlockTracker(), dedup=Deduplicator())
    loaded = loader(pa.table({{"block": [0]}}))
    assert loaded["status"].to_pylist() == ["ok"]
    return loaded
"""
ANNOTATE = """
from pipeline.stages.annotate import Annotator, AnnotatorSettings
names = tuple(scheme.name for scheme in plan.tables.schemes)
annotator = Annotator(AnnotatorSettings(model="ugrie-tiny", options={}, tower_weights=None, schemes=names, tables=plan.tables,
                                        run_id="r", device="cpu", precision="auto", threads=1, batch_size=None, block_rows=1,
                                        tracker=BlockTracker()))
assert len(annotator(load())) == 1
"""


def slow_imports(code: str, folder) -> set[str]:
    """Return the slow libraries that a new process has imported after it has run this code."""
    shown = f"{code}\nimport sys; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, cwd=folder, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return SLOW & set(done.stdout.splitlines())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(
            f"from pipeline.config import AnnotateConfig; import pipeline.commands.main; {SETTINGS}", set(), id="the driver, its settings"
        ),
        pytest.param(PLAN, set(), id="the driver, its plan"),
        pytest.param(f"{OPERATORS}\nload()", set(), id="a loader"),
        pytest.param("import pipeline.stages.write, pipeline.stages.merge, pipeline.stages.dedup", set(), id="writers and mergers"),
        pytest.param(f"{OPERATORS}\n{ANNOTATE}", {"torch", "timm"}, id="an annotator"),
        pytest.param("import ugrie", set(), id="ugrie"),
    ],
)
def test_a_process_imports_no_slow_library_that_it_does_not_run(code, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    assert slow_imports(code, tmp_path) == expected
