"""Hostile files: some in a whole run on a real Ray, all others through the loader."""

import json
import os
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.images.decode import OUT_OF_MEMORY
from pipeline.images.sandbox import Sandbox
from pipeline.run.plan import prepare
from pipeline.sources.source import list_items
from pipeline.stages.tracker import BlockTracker

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
ROOT = Path(__file__).parents[3]


def test_images_that_kill_and_hang_their_decoder_cost_their_rows_alone_and_no_log_has_a_secret(
    start_head, s3, images, poison, monkeypatch, tmp_path
):
    content = {f"{i:02}.jpg": images.jpeg(i) for i in range(24)}
    content |= {f"05-{kind}.jpg": poison.image(kind) for kind in ("segfault", "abort", "recursion")}
    content["20-loop.jpg"] = poison.image("loop")  # in the other block
    content["21-again.jpg"] = poison.image("segfault")
    for name, data in content.items():
        s3.put(f"poison/{name}", data)
    settings = {"input": f"s3://{s3.bucket}/poison", "output": f"s3://{s3.bucket}/poisoned", "run_id": "r", "date": "2026-01-02"}
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    lines += ["block_rows = 15", "decode_timeout = 1", "[storage_options]", f'key = "{s3.key}"', f'secret = "{s3.secret}"']
    lines += ["[storage_options.client_kwargs]", f'endpoint_url = "{s3.endpoint}"', 'region_name = "us-east-1"']
    (tmp_path / "job.toml").write_text("\n".join(lines))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(poison.folder))))
    with start_head(cpus=4, dashboard=False) as head:
        done = head.python("-m", "benchmarks.stubs", "--config", tmp_path / "job.toml")
        logs = {path: path.read_bytes() for path in Path(head.folder).rglob("*") if path.is_file() and not path.is_symlink()}
    assert done.returncode == 0, done.stderr[-4000:]
    record = json.loads(s3.fs.cat_file(f"{s3.bucket}/poisoned/runs/r.json"))
    assert record["counts"]["status"] == {"ok": 24, "decoder_crashed": 3, "timeout": 1, "corrupt": 1}
    assert record["counts"]["reposts"] == {"run": 1, "earlier": 0}
    with s3.fs.open(f"{s3.bucket}/poisoned/{record['files'][0]}", "rb") as file:
        found = {Path(row["uri"]).name: row for row in pq.read_table(file).to_pylist()}
    assert {name: row["status"] for name, row in found.items() if row["status"] != "ok"} == {
        "05-segfault.jpg": "decoder_crashed",
        "05-abort.jpg": "decoder_crashed",
        "20-loop.jpg": "timeout",
        "21-again.jpg": "decoder_crashed",
        "05-recursion.jpg": "corrupt",
    }
    assert "SIGSEGV" in found["05-segfault.jpg"]["error"] == found["21-again.jpg"]["error"]
    for happened in (b"Fatal Python error: Aborted", b"Timeout (0:00:01)!"):  # in workers, before they were decoded apart
        assert any(happened in data for data in logs.values())
    said = [done.stdout.encode(), done.stderr.encode(), *logs.values()]
    assert len(logs) > 10
    assert not any(s3.secret.encode() in data for data in said)


def test_every_hostile_file_is_a_row_and_no_process_is_lost(shared_data, operators, monkeypatch, tmp_path):
    """Fetched and decoded in processes of 2 GB, one of each for a block, which no file ends, fills or delays."""
    folder = shared_data / "hostile"
    settings = {"max_pixels": 20_000_000, "decode_memory": 2_000_000_000, "decode_timeout": 10.0, "block_rows": 1024}
    plan = prepare(AnnotateConfig(input=str(folder), output=str(tmp_path), **settings))
    monkeypatch.setattr(BlockTracker, "begin", lambda tracker, block: 1)  # as if a worker had been lost before
    started = []
    monkeypatch.setattr(Sandbox, "_start", lambda sandbox, up=Sandbox._start: started.append(sandbox) or up(sandbox))
    found = [row for block in plan.todo for row in operators.load(plan, block).drop_columns("crop").to_pylist()]
    assert len(started) == plan.manifest.blocks
    assert len(found) == len({row["image_id"] for row in found}) == sum(1 for _ in list_items(str(folder), "uri", {}))
    statuses = Counter(row["status"] for row in found)
    assert set(statuses) == {"ok", "not_an_image", "corrupt", "too_large", "repost"}
    assert min(statuses["ok"], statuses["not_an_image"], statuses["corrupt"]) > 50
    assert not any(OUT_OF_MEMORY in (row["error"] or "") for row in found)
