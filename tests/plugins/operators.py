"""Calls a run's operators one after another, without Ray."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def block_path(plan: Any, block: int) -> str:
    """Return the absolute path of a block's file."""
    from pipeline.stages.write import file_name

    return plan.output.absolute(f"{plan.rows_folder}/{file_name(block)}")


def alter_block(plan: Any, block: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """Replace the rows of a block's file."""
    path = block_path(plan, block)
    pq.write_table(change(pq.read_table(path)), path)


def one_worker(threads: int | None = None) -> Any:
    """Return the allocation of a run with one worker of each kind, on the CPU."""
    from pipeline.run.resources import Allocation

    return Allocation("cpu", actors=1, least_actors=1, actor_cpus=1, actor_gpus=0, threads=threads, loaders=1, load=1, write=1)


@dataclass
class LocalDeduplicator:
    """`pipeline.stages.dedup.Deduplicator` without Ray: the actor's object is in this process."""

    actor: Any
    most_claimed: int = 32

    def owners(self, block: int, hashes: Sequence[str]) -> list[str | None]:
        from pipeline.stages.dedup import key

        return self.actor.claim(block, list(map(key, hashes)))


@dataclass
class Operators:
    """A plan's three operators, as `pipeline.run.graph` builds them, called one after another in this process.

    With `stub` the annotator has the stub of the model, as that of `local_ray` has.
    """

    stub: bool = True
    models: dict[str, Any] = field(default_factory=dict)
    dedup: Any = None

    def _of(self, plan: Any) -> tuple[Any, Any, Any]:
        from pipeline.run.graph import operators
        from pipeline.stages.dedup import Deduplicator
        from pipeline.stages.tracker import BlockTracker

        return operators(plan, one_worker(), BlockTracker(), self.dedup or Deduplicator())

    @contextmanager
    def sharing(self, earlier: Any = None) -> Iterator[None]:
        """Within the context, blocks find duplicates in each other and in earlier rows."""
        from pipeline.stages.dedup import DedupActor

        self.dedup = LocalDeduplicator(DedupActor(earlier))
        try:
            yield
        finally:
            self.dedup = None

    def annotator(self, plan: Any) -> Any:
        """Return the plan's annotator; a model is loaded once for all plans."""
        from benchmarks import stubs
        from pipeline.stages.annotate import Annotator

        settings = self._of(plan)[1]
        if plan.tables.model not in self.models:
            self.models[plan.tables.model] = (stubs.Annotator if self.stub else Annotator)(settings)
        self.models[plan.tables.model].settings = settings
        return self.models[plan.tables.model]

    def settings(self, plan: Any) -> Any:
        return self._of(plan)[1]

    def writer(self, plan: Any) -> Any:
        return self._of(plan)[2]

    def load(self, plan: Any, block: int) -> pa.Table:
        return self._of(plan)[0](pa.table({"block": [block]}))

    def do(self, plan: Any, numbers: Sequence[int] | None = None) -> pa.Table:
        """Load, annotate and write these blocks, by default all that are left. Return the writer's table."""
        annotate, write = self.annotator(plan), self.writer(plan)
        blocks = [write(annotate(self.load(plan, block))) for block in (plan.todo if numbers is None else numbers)]
        return pa.concat_tables(blocks)

    def merge(self, plan: Any, name: str, numbers: Sequence[int]) -> dict[str, Any]:
        """Merge these blocks into a file of the table, named by its path within the output. Return the merger's result."""
        from pipeline.stages.merge import Merger

        return Merger(plan.output, plan.rows_folder, plan.manifest, plan.tables)(name, numbers)

    def commit(self, plan: Any) -> Any:
        """Annotate all blocks, merge them into one file and commit the run. Return its record."""
        from pipeline.images.decode import identity
        from pipeline.table.commit import commit
        from pipeline.table.run_record import RunRecord
        from pipeline.table.schema import SCHEMA_VERSION

        self.do(plan)
        date = plan.config.date.isoformat()
        file = f"annotations/dt={date}/part-{plan.config.run_id}-{plan.attempt}-00000.parquet"
        self.merge(plan, file, range(plan.manifest.blocks))
        record = {"run_id": plan.config.run_id, "schema_version": SCHEMA_VERSION, "model": plan.tables.model, "tower": plan.tables.tower}
        record |= {"precision": "fp32", "date": date, "finished_at": f"{date}T00:00:00+00:00", "counts": {}, "files": [file]}
        record |= {
            "decoder": identity(plan.config),
            "config": plan.config.public(),
            "schemes": {scheme.name: scheme.kind for scheme in plan.tables.schemes},
            "zero_shot": plan.tables.zero_shot_digests,
        }
        return commit(plan.output, RunRecord.model_validate(record))

    def rows(self, plan: Any) -> list[dict[str, Any]]:
        """Annotate and merge all blocks. Return the table's rows, in order."""
        from pipeline.stages.merge import block_groups

        self.do(plan)
        rows = []
        for i, group in enumerate(block_groups(plan.output, plan.rows_folder, plan.manifest)):
            self.merge(plan, f"annotations/part-{i}.parquet", group)
            with plan.output.open(f"annotations/part-{i}.parquet") as file:
                rows += pq.read_table(file).to_pylist()
        return rows


@pytest.fixture(scope="session")
def operators() -> Operators:
    return Operators()


@pytest.fixture(scope="session")
def model_operators() -> Operators:
    """The operators with the model itself."""
    return Operators(stub=False)
