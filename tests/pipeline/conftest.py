"""Fixtures of the corpus job's tests: an S3 server that fails."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.servers.proxy import Proxy
from benchmarks.servers.seaweed import S3


@pytest.fixture
def failing(s3: S3) -> Callable[..., AbstractContextManager[tuple[Proxy, S3]]]:
    """The same server seen through a proxy that fails: `with failing(fraction=0.2) as (proxy, s3)`."""

    @contextmanager
    def start(**settings: Any) -> Iterator[tuple[Proxy, S3]]:
        with Proxy(s3.endpoint, **settings) as proxy:
            yield proxy, replace(s3, endpoint=proxy.endpoint)

    return start
