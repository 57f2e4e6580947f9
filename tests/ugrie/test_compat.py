"""torchvision can be imported with and without its compiled operators."""

import os
import subprocess
import sys

from ugrie.compat import declare_missing

# A torchvision that, like the real one, registers shape functions for operators that are not declared.
NEEDY = """
import torch

@torch.library.register_fake("torchvision::made_up_first")
def first(dets, scores, iou_threshold):
    return dets

@torch.library.register_fake("torchvision::made_up_second")
def second(dets, scores, iou_threshold):
    return dets

complete = True
"""


def imported_with(tmp_path, torchvision: str, code: str) -> subprocess.CompletedProcess:
    """Run code in a new process that finds this torchvision first."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(torchvision)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path})


def test_operators_that_are_missing_are_declared_and_the_import_goes_through(tmp_path):
    code = (
        "import ugrie.compat, torchvision, torch; "
        "assert torchvision.complete; torch.ops.torchvision.made_up_first; torch.ops.torchvision.made_up_second"
    )
    done = imported_with(tmp_path, NEEDY, code)
    assert done.returncode == 0, done.stderr


def test_any_other_error_of_the_import_goes_through(tmp_path):
    done = imported_with(tmp_path, "raise RuntimeError('the disk is on fire')", "import ugrie.compat")
    assert done.returncode != 0
    assert "the disk is on fire" in done.stderr


def test_once_imported_nothing_is_missing():
    assert declare_missing() == []
    from torchvision import transforms

    assert transforms.CenterCrop(2).size == (2, 2)
