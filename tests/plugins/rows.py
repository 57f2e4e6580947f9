"""Helpers to read, compare and check the output of a run; and the data sets beside the repository."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.compare import file_name, same_labels

SHARED = Path(__file__).parents[3] / "shared"


class Rows:
    """Reads and compares the rows that runs wrote."""

    differences = staticmethod(same_labels)
    file_name = staticmethod(file_name)

    def table(self, output: Path, record: Any) -> pa.Table:
        return pa.concat_tables(pq.read_table(output / name, partitioning=None) for name in record.files)

    def of(self, output: Path, record: Any) -> list[dict[str, Any]]:
        return self.table(output, record).to_pylist()

    def record(self, output: Path) -> Any:
        """Return the record of an output's only run."""
        from pipeline.table.run_record import RunRecord

        (path,) = (output / "runs").glob("*.json")
        return RunRecord.from_json(path.read_bytes(), str(path))


@pytest.fixture(scope="session")
def rows() -> Rows:
    return Rows()


@pytest.fixture(scope="session")
def check_output() -> Callable[..., str]:
    """The independent checker of outputs, as a function. Skips the test if the checker is missing."""
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
    """The data sets beside the repository. Skips the test if they are missing."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the data in ../shared/data is not here")
    return SHARED / "data"
