"""What the tests share, in tests/plugins: images and a small corpus, operators without Ray, one Ray, one S3, one finished run.

Nothing here leaves the machine: Ray's and SeaweedFS's reports home are off, and both listen on the loopback alone.
"""

import os
import secrets
import shutil
import tempfile
from pathlib import Path

import pytest

pytest_plugins = [f"tests.plugins.{name}" for name in ("cluster", "corpus", "operators", "poison", "rows", "s3")]
RAY_FILES = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Ray reads these when it is imported: a token of ours rather than the user's, and no usage statistics."""
    folder = config.stash[RAY_FILES] = tempfile.mkdtemp(prefix="ugrie-ray-")
    token = Path(folder) / "token"
    token.write_text(secrets.token_hex(16))
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_USAGE_STATS_ENABLED="0")
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ.pop("RAY_ADDRESS", None)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[RAY_FILES], ignore_errors=True)
