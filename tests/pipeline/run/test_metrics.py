"""Prometheus metrics of a run: values set in Ray, and exported by its agent."""

import datetime as dt
import re
import threading
import time
import urllib.request
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray.util.metrics import Counter

from pipeline.config import AnnotateConfig
from pipeline.run import metrics
from pipeline.run.metrics import METRICS, NOT_BEGUN, Metrics, record_success
from pipeline.run.progress import Progress
from pipeline.run.resources import Allocation
from pipeline.stages.tracker import BlockTracker
from pipeline.table.run_record import RunRecord

SHARES = Allocation("cpu", actors=2, least_actors=2, actor_cpus=1, actor_gpus=0, threads=None, loaders=3, load=1, write=0.25)
WRITTEN = {"block": 0, "rows": 9, "ok": 7, "status": [("ok", 5), ("repost", 2), ("missing", 2)]}
SECONDS = {"fetch_seconds": 1.5, "decode_seconds": 0.5, "annotate_seconds": 0.0}


class Values(dict):
    """The values of the metrics: (metric, its tags) -> value."""

    def inc(self, name, value, tags=None):
        assert value > 0, "Ray refuses it"
        self[key(name, tags)] = self.get(key(name, tags), 0) + value

    def set(self, name, value, tags=None):
        if value is not None:
            self[key(name, tags)] = value

    def __call__(self, name, **tags):
        return self[key(name, tags)]


def key(name, tags):
    return name, *sorted((tags or {}).items())


@pytest.fixture
def values(monkeypatch):
    """Values set in these metrics, which stand in for Ray's."""
    values = Values()

    def meter(name):
        return SimpleNamespace(
            inc=lambda value, tags=None: values.inc(name, value, tags), set=lambda value, tags=None: values.set(name, value, tags)
        )

    monkeypatch.setattr(metrics, "meters", lambda model: {name: meter(name) for name in METRICS})
    return values


def of_run(tracker, progress=None, blocks=4, model="m@1", **settings):
    config = AnnotateConfig(input="in", output="out", run_id="r", date=dt.date(2026, 1, 2), **settings)
    plan = SimpleNamespace(config=config, tables=SimpleNamespace(model=model), todo=tuple(range(blocks)))
    return Metrics(plan, SHARES, tracker, progress or Progress(36))


def tracker_with(stages):
    return SimpleNamespace(stages=lambda: dict(stages))


def test_names_are_as_prometheus_wants_them():
    assert all(re.fullmatch(r"ugrie_[a-z_]+", name) for name in METRICS)
    assert {name for name, (kind, *_) in METRICS.items() if kind is Counter} == {name for name in METRICS if name.endswith("_total")}


def test_a_block_is_counted_by_status_and_seconds(values):
    updater = of_run(BlockTracker())
    for _ in range(2):
        updater.add(WRITTEN | SECONDS)
    assert [values("ugrie_images_total", status=status) for status in ("ok", "repost", "missing")] == [10, 4, 4]
    assert values("ugrie_stage_seconds_total", stage="fetch") == 3
    assert ("ugrie_stage_seconds_total", ("stage", "annotate")) not in values, "a counter takes no zero"


def test_gauges_say_where_the_run_is(values):
    progress = Progress(36, done=9)
    updater = of_run(tracker_with({"being loaded": 2, "being annotated": 1}), progress)
    updater.update()
    blocks = {stage: values("ugrie_blocks", stage=stage) for stage in ("being loaded", "being annotated", NOT_BEGUN)}
    assert blocks == {"being loaded": 2, "being annotated": 1, NOT_BEGUN: 1}
    assert (values("ugrie_run_images"), values("ugrie_run_images_done")) == (36, 9)
    assert (values("ugrie_workers", kind="annotators"), values("ugrie_workers", kind="loaders")) == (2, 3)
    assert values("ugrie_run_info", run_id="r", date="2026-01-02", device="cpu") == 1
    assert ("ugrie_images_per_second",) not in values, "it is not known before the second block"


def test_a_run_that_reads_no_images_has_no_loaders(values):
    of_run(BlockTracker(), from_embeddings=True).update()
    assert [tags for name, *tags in values if name == "ugrie_workers"] == [[("kind", "annotators")]]


def test_a_stage_that_no_block_is_in_any_more_is_at_zero(values):
    stages = {"being loaded": 4}
    updater = of_run(tracker_with(stages))
    updater.update()
    stages.clear()
    for _ in range(4):
        updater.add(WRITTEN | SECONDS)
    updater.update()
    assert [values("ugrie_blocks", stage=stage) for stage in ("being loaded", NOT_BEGUN)] == [0, 0]


def test_a_board_that_does_not_answer_ends_no_run(values):
    def dead():
        raise TimeoutError("its node is gone")

    of_run(SimpleNamespace(stages=dead)).update()
    assert values("ugrie_run_images") == 36


def test_gauges_are_told_again_while_no_block_is_written(values, monkeypatch):
    monkeypatch.setattr(metrics, "EVERY_SECONDS", 0.01)
    asked, often = [], threading.Event()

    def stages():
        asked.append(1)
        if len(asked) > 3:
            often.set()
        return {}

    with of_run(SimpleNamespace(stages=stages)):
        assert often.wait(10)


def test_a_success_is_told_with_the_time_at_which_the_run_finished(values, monkeypatch):
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: True)
    record_success(record())
    assert values("ugrie_last_success_timestamp_seconds") == 1767312000
    assert values("ugrie_stage_seconds_total", stage="commit") == 2.5


def test_a_night_with_nothing_new_starts_no_ray_to_tell_of_it(values, monkeypatch):
    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(metrics, "connect_ray", lambda: pytest.fail("Ray was started"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    record_success(record())
    assert values == {}


def test_that_a_success_can_not_be_told_is_a_warning(values, monkeypatch, caplog):
    def refuses():
        raise ConnectionError("no cluster is there")

    monkeypatch.setattr(metrics.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(metrics, "connect_ray", refuses)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    record_success(record())
    assert "run r is committed, but its metrics could not be set: no cluster is there" in caplog.text


def record(model="m@1"):
    about = {"run_id": "r", "model": model, "date": "2026-01-02", "finished_at": "2026-01-02T00:00:00+00:00"}
    return RunRecord.model_validate(about | {"timings": {"commit_seconds": 2.5}, "schemes": {}, "counts": {}, "files": (), "config": {}})


def scraped(model):
    """Metrics of a model, exported by Ray's agent and parsed as by Prometheus: (metric, the other tags) -> value."""
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = urllib.request.urlopen(url, timeout=30).read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("model") == model:
                ours = METRICS[sample.name.removeprefix("ray_")][2]
                found[key(sample.name, {tag: sample.labels[tag] for tag in ours})] = sample.value
    return found


def test_rays_agent_exports_all_of_them(local_ray):
    tracker, progress = BlockTracker.start(), Progress(36)
    with of_run(tracker, progress, model="scraped@1") as updater:
        tracker.begin(1)
        for _ in range(2):
            progress.add(9, 7)
            updater.add(WRITTEN | SECONDS | {"annotate_seconds": 1.0})
    record_success(record("scraped@1"))
    end, names, found = time.monotonic() + 60, {f"ray_{name}" for name in METRICS}, {}
    while {name for name, *_ in found} != names and time.monotonic() < end:  # the agent gets them every ten seconds
        time.sleep(0.5)
        found |= scraped("scraped@1")
    assert {name for name, *_ in found} == names
    assert found["ray_ugrie_images_total", ("status", "missing")] == 4
    assert found["ray_ugrie_stage_seconds_total", ("stage", "commit")] == 2.5
    assert found["ray_ugrie_blocks", ("stage", "being loaded")] == 1
    assert found["ray_ugrie_blocks", ("stage", NOT_BEGUN)] == 1
    assert found["ray_ugrie_run_images_done",] == 18
    assert found["ray_ugrie_last_success_timestamp_seconds",] == 1767312000
