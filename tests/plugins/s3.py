"""The S3 server that all tests share."""

from collections.abc import Iterator

import pytest

from benchmarks.servers.seaweed import S3, seaweed


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server
