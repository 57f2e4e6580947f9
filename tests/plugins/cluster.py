"""The Ray that all tests share, a run that it finished, and heads of their own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.servers.ray_head import ray_head


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """The one Ray within this process that all tests share, of four logical CPUs."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@dataclass(frozen=True)
class Run:
    """A committed run: what was asked, its record, where it lies."""

    config: Any
    record: dict[str, Any]
    output: Path


@pytest.fixture(scope="session")
def finished(corpus: Any, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The corpus annotated by Ray, undisturbed: what other runs are compared with."""
    from pipeline.config import AnnotateConfig
    from pipeline.run.driver import annotate

    output = tmp_path_factory.mktemp("finished")
    config = AnnotateConfig(input=str(corpus.folder), output=str(output), run_id="undisturbed", date="2026-01-02", block_rows=8)
    return Run(config, annotate(config), output)


@pytest.fixture
def start_head() -> Callable[..., Any]:
    """Starts a Ray head of its own, as a context: `with start_head(cpus=1, dashboard=False) as head`."""
    return ray_head
