"""Fixtures for Ray: one instance that all tests share, a finished run, and heads for single tests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.servers.ray_head import ray_head

if TYPE_CHECKING:
    from pipeline.table.run_record import RunRecord


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Start the Ray instance that all tests of this process share, with four logical CPUs.

    Runs on it annotate with the stub of the model: they test the job, and most of an annotator's start is the import of torch.
    """
    import ray

    from benchmarks import stubs

    stubs.stub_model()
    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Run:
    """A committed run: its settings, its record and its output folder."""

    config: Any
    record: "RunRecord"
    output: Path


@pytest.fixture(scope="session")
def finished(corpus: Any, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Annotate the corpus on Ray without disturbance: the reference for other runs."""
    from pipeline.config import AnnotateConfig
    from pipeline.run.driver import annotate

    output = tmp_path_factory.mktemp("finished")
    config = AnnotateConfig(input=str(corpus.folder), output=str(output), run_id="undisturbed", date="2026-01-02", block_rows=8)
    return Run(config, annotate(config), output)


@pytest.fixture
def start_head() -> Callable[..., Any]:
    """Context manager that starts a separate Ray head: `with start_head(cpus=1, dashboard=False) as head`."""
    return ray_head
