"""Fixtures of the commands' tests."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from pipeline.commands.main import run


@dataclass(frozen=True)
class Command:
    """A subcommand of `ugrie`."""

    name: str

    def run(self, tokens: Sequence[str]) -> int:
        """Run it in this process and return its exit code."""
        return run([self.name, *tokens])


@pytest.fixture(scope="module")
def command(request: pytest.FixtureRequest) -> Command:
    """The subcommand that a test file is named after."""
    return Command(request.path.stem.removeprefix("test_"))
