"""Planning by the cluster in the test's own process: the tasks are called one after another, and the shuffle is done in memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest


class LocalTasks:
    """`pipeline.planning.tasks.Tasks` without Ray. The results come in the opposite order."""

    most = 3

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.results: list[tuple[int, Any]] = []

    def __enter__(self) -> "LocalTasks":
        return self

    def __exit__(self, *_: object) -> None: ...

    def __len__(self) -> int:
        return len(self.results)

    def submit(self, number: int, *arguments: Any) -> None:
        from ray import cloudpickle

        function, arguments = cloudpickle.loads(cloudpickle.dumps((self.function, arguments)))
        self.results.append((number, function(*arguments)))

    def next(self) -> tuple[int, Any]:
        return self.results.pop()


def divided(table: pa.Table, key: str, partitions: int) -> Iterator[pa.Table]:
    """Yield the rows with each remainder of a column, shuffled, also where there are none."""
    order = np.random.default_rng(0).permutation(len(table))
    table = table.take(pa.array(order))
    remainders = table[key].to_numpy() % partitions
    yield from (table.filter(pa.array(remainders == each)) for each in range(partitions))


def shuffled(shuffle: Any, files: Sequence[tuple[int, str]]) -> Iterator[pa.Table]:
    """`pipeline.planning.shuffle.Shuffle.__call__` without Ray."""
    names = pa.table({"part": [part for part, _ in files], "path": [path for _, path in files]})
    named = pa.concat_tables([table for start in range(0, len(files), 2) for table in shuffle.reader(names[start : start + 2])])
    decided = pa.concat_tables([shuffle._decided(table) for table in divided(named, "image_id", 3)])
    yield from (shuffle.writer(table) for table in divided(decided, "group", 2))


@pytest.fixture
def plan_here(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """`pipeline.run.plan.prepare` by a cluster that is this process, with small parts, pieces, groups and files of the manifest."""
    from pipeline.planning import cluster, listing, manifest_files, part, pieces
    from pipeline.run import resources
    from pipeline.run.plan import prepare

    monkeypatch.setattr(resources, "connect_ray", lambda: None)
    monkeypatch.setattr(resources, "await_workers", lambda config: None)
    monkeypatch.setattr(cluster, "Tasks", LocalTasks)
    monkeypatch.setattr(cluster.Shuffle, "__call__", shuffled)
    monkeypatch.setattr(cluster, "partitions_of", lambda rows: 3)
    for module, settings in {
        part: {"BATCH": 3, "MAX_ROWS": 6},
        pieces: {"ROWS": 5, "BYTES": 300, "SHARDS": 2, "FILES": 2},
        listing: {"MOST_LISTED": 4, "FEW_LISTED": 2},
        manifest_files: {"BLOCKS_PER_FILE": 2, "FILES": 2},
    }.items():
        for name, value in settings.items():
            monkeypatch.setattr(module, name, value)
    from pipeline.inputs import manifest

    monkeypatch.setattr(manifest, "BLOCKS_PER_FILE", 2)

    def by_cluster(config: Any) -> Any:
        return prepare(config.model_copy(update={"planning": "cluster", "run_id": f"{config.run_id}-by-cluster"}))

    return by_cluster
