"""How tests read, compare and check what a run wrote; and the data sets beside the repository."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SHARED = Path(__file__).parents[3] / "shared"


def same_labels(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> list[str]:
    """Where two tables say different things of an image: status, sentence, labels, probabilities. Empty where they agree."""
    left, right = {key(row): row for row in ours}, {key(row): row for row in theirs}
    problems = [f"{len(ours)} rows against {len(theirs)}"] if len(ours) != len(theirs) else []
    problems += [f"{name} is in one only" for name in left.keys() ^ right.keys()]
    for name in left.keys() & right.keys():
        a, b = left[name], right[name]
        problems += [f"{name}: {column} {a[column]} against {b[column]}" for column in ("status", "sentence") if a[column] != b[column]]
        for scheme in (column for column, value in a.items() if isinstance(value, dict)):
            if b[scheme] is None or not np.allclose(a[scheme]["probs"], b[scheme]["probs"], atol=1e-4):
                problems.append(f"{name}: {scheme} {a[scheme]} against {b[scheme]}")
    return problems


def file_name(row: dict[str, Any]) -> str:
    return Path(row["uri"]).name


class Rows:
    """How tests read and compare what a run wrote."""

    differences = staticmethod(same_labels)
    file_name = staticmethod(file_name)

    def table(self, output: Path, record: dict[str, Any]) -> pa.Table:
        return pa.concat_tables(pq.read_table(output / name, partitioning=None) for name in record["files"])

    def of(self, output: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
        return self.table(output, record).to_pylist()

    def record(self, output: Path) -> dict[str, Any]:
        """The record of the one run that is in an output."""
        (path,) = (output / "runs").glob("*.json")
        return json.loads(path.read_text())


@pytest.fixture(scope="session")
def rows() -> Rows:
    return Rows()


@pytest.fixture(scope="session")
def check_output() -> Callable[..., str]:
    """Runs the independent checker of outputs; skips where it isn't at hand."""
    script = SHARED / "check" / "output.py"
    if not script.is_file():
        pytest.skip("the checker ../shared/check/output.py is not here")

    def check(output: Path, *arguments: object) -> str:
        done = subprocess.run([sys.executable, str(script), str(output), *map(str, arguments)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return check


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data sets beside the repository; skips where they aren't at hand."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the data in ../shared/data is not here")
    return SHARED / "data"
