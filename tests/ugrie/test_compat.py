"""torchvision can be imported with and without its compiled operators."""

import os
import subprocess
import sys

import pytest

from ugrie.compat import declare_missing

pytestmark = pytest.mark.slow

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


def imported_with(tmp_path, torchvision: str, code: str, ops: str = "") -> subprocess.CompletedProcess:
    """Run code in a new process that finds this torchvision first."""
    (tmp_path / "torchvision" / "ops").mkdir(parents=True)
    (tmp_path / "torchvision" / "__init__.py").write_text(torchvision)
    (tmp_path / "torchvision" / "ops" / "__init__.py").write_text(ops)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path})


def test_operators_that_are_missing_are_declared_and_the_import_goes_through(tmp_path):
    code = (
        "from ugrie.compat import declare_missing; declare_missing(); import torchvision, torch; "
        "assert torchvision.complete; torch.ops.torchvision.made_up_first; torch.ops.torchvision.made_up_second"
    )
    done = imported_with(tmp_path, NEEDY, code)
    assert done.returncode == 0, done.stderr


def test_any_other_error_of_the_import_goes_through(tmp_path):
    done = imported_with(tmp_path, "raise RuntimeError('the disk is on fire')", "from ugrie.libraries import BartConfig")
    assert done.returncode != 0
    assert "the disk is on fire" in done.stderr


def test_once_imported_nothing_is_missing():
    declare_missing()
    assert declare_missing() == []
    from torchvision import transforms

    assert transforms.CenterCrop(2).size == (2, 2)


def test_timm_and_open_clip_are_imported_without_the_compiler_and_all_of_torchvision_is_there_for_others():
    code = """
import sys
import torch
from ugrie.libraries import timm, open_clip
disable = torch.compiler.disable
network = timm.create_model("tf_efficientnet_lite2").eval()
assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
assert not {"torch._dynamo", "sympy", "torchvision", "torchvision.ops"} & set(sys.modules)
assert torch.compiler.disable is disable
assert len(open_clip.list_models()) > 50
assert not {"torch._dynamo", "sympy", "torchvision", "torchvision.ops"} & set(sys.modules)
from ugrie.libraries import BartForConditionalGeneration
import torchvision
assert (torchvision.ops.nms, torchvision.models.resnet18, BartForConditionalGeneration)
assert torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(2)).sum() == 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("needs", ["from torchvision.ops import nms", "import torchvision; torchvision.ops.nms"])
def test_a_timm_that_needs_more_of_torchvision_gets_it(tmp_path, needs):
    code = """
from ugrie.libraries import timm
assert timm.found
"""
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text(f"{needs}\nfound = True\n")
    done = imported_with(tmp_path, "import torch\nfrom torchvision import ops\n", code, ops="nms = True\n")
    assert done.returncode == 0, done.stderr
