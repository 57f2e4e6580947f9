"""Fixtures of all tests, in tests/plugins: images and a small corpus, operators and runs without Ray, one Ray, one S3, a GPU that is none.

Nothing here leaves the machine: Ray's and SeaweedFS's reports home are off, and both listen on the loopback alone.
"""

from contextlib import ExitStack

import pytest
from hypothesis import settings

from benchmarks.servers.processes import ray_token

pytest_plugins = [
    f"tests.plugins.{name}"
    for name in (
        "browser",
        "clips",
        "cluster",
        "corpus",
        "fake_gpu",
        "hub",
        "iceberg_tables",
        "nights",
        "operators",
        "in_process",
        "outputs",
        "pages",
        "planning",
        "poison",
        "posts",
        "rows",
        "s3",
    )
]
RAY = pytest.StashKey[ExitStack]()
# The marks of tests by the fixtures that they use, themselves, through others or by a parameter. Tests that are slow otherwise say so.
MARKS = {"ray": {"local_ray"}, "cluster": {"start_head", "head"}, "s3": {"s3"}, "browser": {"browser"}}


settings.register_profile("quick", max_examples=20)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RAY] = ExitStack()
    config.stash[RAY].enter_context(ray_token())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        used = {*getattr(item, "fixturenames", ()), *(value for value in parameters if isinstance(value, str))}
        for mark, fixtures in MARKS.items():
            if fixtures & used:
                item.add_marker(mark)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[RAY].close()
