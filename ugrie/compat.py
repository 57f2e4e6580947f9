"""Make `import torchvision` work where its compiled operators can't be loaded.

PyPI's torchvision is built against CUDA. On a CPU build of torch its extension is not loaded, and the import fails with
``operator torchvision::nms does not exist``: torchvision registers shape functions for operators that are not declared. open_clip
and timm import torchvision, so they fail too, although they use none of these operators.

Declaring the missing operators' schemas is enough for the import; calling one still raises. `torchvision.io` and
`torchvision.ops` stay unavailable. Import this module before open_clip, timm or torchvision.
"""

import importlib
import re
import sys

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library = torch.library.Library("torchvision", "FRAGMENT")  # the declarations last as long as this object


def declare_missing() -> list[str]:
    """Import torchvision, declaring each operator that is missing. Returns the names of the declared operators."""
    declared: list[str] = []
    while True:
        try:
            importlib.import_module("torchvision")
            return declared
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None or missing[1] in declared:
                raise
            _library.define(missing[1] + _SCHEMA)
            declared.append(missing[1])
            for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
                del sys.modules[name]


declare_missing()
