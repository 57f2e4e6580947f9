"""Jobs that erase images."""

import pytest

from pipeline.erasure.erase import EraseJob
from pipeline.table import journal
from pipeline.table.output_folder import OutputFolder
from pipeline.table.suppressed import read_list


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Whoever finds a journal takes its owner for dead, without waiting half a minute."""
    monkeypatch.setattr(journal, "_wait_for_life", lambda *_: None)


@pytest.fixture
def job(tmp_path):
    """Return a function that makes the job to erase some images from an output."""

    def make(output, *entries):
        (tmp_path / "list.txt").write_text("\n".join(map(str, entries)))
        folder = output if isinstance(output, OutputFolder) else OutputFolder(str(output), {})
        return EraseJob(folder, *read_list(str(tmp_path / "list.txt"), {}))

    return make
