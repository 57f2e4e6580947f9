"""Runs on a cluster of several nodes, each with a raylet of its own on this machine: a head without CPUs, and nodes that come and go."""

import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.util.state import list_actors, list_nodes, list_tasks

from benchmarks.servers.processes import script
from benchmarks.servers.ray_head import Head, ray_head

ROOT = Path(__file__).parents[3]
STORE = 80_000_000  # bytes of each node's object store, which is about the least that Ray takes
LINKS = 1200  # images that were posted before, whose crops of 150 kB each are more than the stores hold, with little to annotate

pytestmark = pytest.mark.timeout(600)


class Placed:
    """The nodes that a cluster's tasks and actors ran on, by name, from Ray's state API."""

    def __init__(self, head: Head):
        self.address = head.dashboard
        self.names = {node.node_id: "head" if node.is_head_node else node.node_name for node in list_nodes(self.address, limit=100)}

    def tasks(self, job: str, what: str = "") -> Counter[str]:
        """Count the tasks that each node has finished, of a job's tasks whose name contains `what`."""
        filters = [("job_id", "=", job), ("type", "=", "NORMAL_TASK"), ("state", "=", "FINISHED")]
        found = list_tasks(self.address, filters=filters, limit=10_000, raise_on_missing_output=False)
        return Counter(self.names[task.node_id] for task in found if what in task.name and task.node_id)

    def actors(self, job: str, what: str) -> Counter[str]:
        found = list_actors(self.address, filters=[("job_id", "=", job)], limit=1000)
        return Counter(self.names[actor.node_id] for actor in found if what in actor.class_name)

    def jobs(self) -> list[str]:
        """Return the jobs that annotate, in order."""
        found = list_actors(self.address, limit=1000)
        return sorted({actor.job_id for actor in found if actor.class_name == "TrackerActor"})


@dataclass(frozen=True)
class NodesRun:
    """A run on the nodes: its log, its exit code, its output, and where its parts ran."""

    log: str
    code: int
    output: Path
    placed: Placed
    job: str


@pytest.fixture(scope="module")
def head():
    with ray_head(cpus=0, dashboard=True) as head:
        yield head


# `ugrie annotate` with the stub of the model, whose blocks' numbers are handed out by tasks, four at once, as a large run's are.
HANDED_OUT = """
import sys
import benchmarks.stubs
from pipeline.commands.main import run
from pipeline.stages import block_numbers

block_numbers.AT_ONCE = 4
benchmarks.stubs.stub_model()
sys.exit(run(["annotate", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def disturbed(head, corpus, tmp_path_factory):
    """A job, submitted from outside, that loses one of its two nodes while it runs; another joins late.

    The lost one has the only CPUs on which images can be loaded beside the annotator, and has loaded some that nobody has taken yet.
    """
    output = tmp_path_factory.mktemp("disturbed")
    head.join("gpu", cpus=1, gpus=1, store=STORE)
    lost = head.join("lost", cpus=2, store=STORE)
    job = f"ls -A; (cd / && {sys.executable} -c 'import pipeline; print(pipeline.__file__)'); exec {sys.executable} -c '{HANDED_OUT}'"
    arguments = f"--input {corpus.folder} --output {output} --run-id submitted --date 2026-01-02 --block-rows 2 --device cpu"
    process = head.submit("--working-dir", ".", entrypoint=["sh", "-c", f"{job} {arguments}"])
    while process.poll() is None and not loaded_by(head, "lost"):
        time.sleep(0.5)
    lost.kill()
    head.join("late", cpus=2, store=STORE)
    log = process.communicate(timeout=400)[0]
    placed = Placed(head)
    return NodesRun(log, process.returncode, output, placed, placed.jobs()[0])


def loaded_by(head: Head, name: str) -> int:
    placed = Placed(head)
    return sum(placed.tasks(job, "Loader")[name] for job in placed.jobs())


def test_a_submitted_job_that_loses_a_node_and_gets_another_ends_as_if_undisturbed(disturbed, finished, rows):
    assert disturbed.code == 0, disturbed.log[-4000:]
    record = rows.record(disturbed.output)
    found = rows.of(disturbed.output, record)
    assert rows.differences(rows.of(finished.output, finished.record), found, lambda row: row["image_id"]) == []
    assert record.counts == finished.record.counts


def test_the_independent_checker_finds_nothing_wrong(disturbed, finished, check_output):
    check_output(disturbed.output, "--rows", 40, "--same-as", finished.output)


def test_who_submits_a_job_sees_its_progress_and_its_end(disturbed):
    assert "40 of 40 images (100%)" in disturbed.log
    assert " of 40 images annotated by ugrie-tiny@" in disturbed.log


def test_a_submitted_job_has_the_project_by_the_upload_alone(disturbed):
    listed = disturbed.log.splitlines()
    assert {"jobs", "pipeline", "ugrie"} <= set(listed)
    assert not {".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", "demo", ".ugrie-cache"} & set(listed)
    (package,) = [line for line in listed if line.endswith("pipeline/__init__.py")]
    assert Path(package).parents[1] != ROOT


def test_a_node_that_joins_late_works_and_the_head_does_not(disturbed):
    loaders, tasks = (disturbed.placed.tasks(disturbed.job, what) for what in ("Loader", ""))
    assert loaders["lost"] > 0
    assert loaders["late"] > 0
    assert "head" not in tasks


# A run whose annotators ask Ray for half a GPU each, and compute on the CPU: the machine has no GPU, although Ray has one to share out.
PRETENDING = """
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[3])
from benchmarks.stubs import stub_model
from pipeline.config import AnnotateConfig
from pipeline.run import execute
from pipeline.run.driver import annotate
from pipeline.run.resources import allocate

config = AnnotateConfig(input=sys.argv[1], output=sys.argv[2], run_id="gpu", date="2026-01-02", block_rows=32, gpus_per_actor=0.5)
execute.allocate = lambda config: replace(allocate(config), device="cpu", threads=1)
stub_model()
annotate(config)
"""


@pytest.fixture(scope="module")
def mixed(disturbed, head, corpus, tmp_path_factory):
    """A run on a node of CPUs and one with a GPU and a CPU."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "in").mkdir()
    for i in range(LINKS):
        file = corpus.files[i % len(corpus.files)]
        os.link(file, folder / "in" / f"{i:04d}-{file.name}")
    done = head.python("-c", PRETENDING, folder / "in", folder / "out", ROOT)
    placed = Placed(head)
    return NodesRun(done.stderr, done.returncode, folder / "out", placed, placed.jobs()[-1])


def test_two_annotators_share_the_gpu_and_both_nodes_load(mixed):
    assert mixed.code == 0, mixed.log[-4000:]
    assert mixed.placed.actors(mixed.job, "Annotator") == {"gpu": 2}
    loaders = mixed.placed.tasks(mixed.job, "Loader")
    assert loaders.keys() == {"late", "gpu"}
    assert "head" not in mixed.placed.tasks(mixed.job)


def test_a_run_on_nodes_of_two_kinds_is_exact(mixed, finished, rows):
    record = rows.record(mixed.output)
    assert record.tuning["actors"] == 2
    expected = {row["content_hash"]: row for row in rows.of(finished.output, finished.record)}
    found = rows.of(mixed.output, record)
    assert len({row["uri"] for row in found}) == len(found) == LINKS
    once = {row["content_hash"]: row for row in found}
    assert rows.differences(list(expected.values()), list(once.values()), lambda row: row["content_hash"]) == []
    said = {(row["content_hash"], row["status"], row["sentence"]) for row in found}
    assert said == {(key, row["status"], row["sentence"]) for key, row in expected.items()}


def test_the_nodes_object_stores_hold_what_is_under_way(mixed, head):
    """More data passes through them than they hold together, and nothing is spilled to disk."""
    command = [script("ray"), "memory", "--stats-only", f"--address={head.address}"]
    said = subprocess.run(command, env=head.environment, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Plasma memory usage" in said
    assert "Spilled" not in said
