"""Whole runs in the test's own process, without Ray: the operators are called one after another, with the stub of the model.

For what follows from a run's files: nights, duplicates, runs that died and go on. Whatever Ray has a part in, such as the errors of its
workers, is tested on Ray.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from tests.plugins.operators import LocalDeduplicator, Operators, one_worker

if TYPE_CHECKING:
    from pipeline.table.run_record import RunRecord


@dataclass
class LocalGraph:
    """`pipeline.run.graph.graph` without Ray."""

    plan: Any
    allocation: Any
    tracker: Any
    dedup: Any

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        """Yield the writer's result of each block that is left."""
        from pipeline.stages.reannotate import Reannotator
        from pipeline.table.output_folder import OutputFolder

        operators, plan, config = Operators(dedup=self.dedup), self.plan, self.plan.config
        if not config.from_embeddings:
            yield from (operators.do(plan, [block]) for block in plan.todo)
            return
        source = OutputFolder(config.input, config.storage_options)
        again = Reannotator(operators.settings(plan), source, plan.output, plan.manifest, plan.lists.suppressed)
        yield from (operators.writer(plan)(again(pa.table({"block": [block]}))) for block in plan.todo)


@contextmanager
def without_ray() -> Iterator[None]:
    """Within the context, runs of this process execute in it."""
    from pipeline.run import execute, local_ray
    from pipeline.stages.dedup import DedupActor
    from pipeline.stages.merge import Merger

    def merge_files(plan: Any, allocation: Any, todo: dict[str, list[int]], overtaken: Any, merged: Any) -> None:
        merger = Merger(plan.output, plan.rows_folder, plan.manifest, plan.tables)
        for target, numbers in todo.items():
            merged.add(target, merger(target, numbers, overtaken, plan.lists.suppressed))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_ray, "start", lambda: None)
        for name, instead in {
            "connect_ray": lambda: None,
            "await_workers": lambda config: None,
            "allocate": lambda config: one_worker(),
            "_configure_ray_data": lambda *_: None,
            "graph": LocalGraph,
            "_merge_files": merge_files,
        }.items():
            patch.setattr(execute, name, instead)
        patch.setattr(execute.Deduplicator, "start", lambda earlier, loaders: LocalDeduplicator(DedupActor(earlier)))
        patch.setattr(execute.BlockTracker, "start", execute.BlockTracker)
        yield


@pytest.fixture(scope="session")
def annotate_here() -> Callable[[Any], "RunRecord"]:
    """`pipeline.run.driver.annotate` without Ray."""

    def annotate(config: Any) -> "RunRecord":
        from pipeline.run.driver import annotate

        with without_ray():
            return annotate(config)

    return annotate
