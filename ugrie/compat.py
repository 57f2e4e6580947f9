"""Makes `import torchvision` work where its compiled operators can't be loaded.

PyPI's torchvision is built against CUDA. On a CPU build of torch its extension is not loaded, and the import itself then
fails with ``operator torchvision::nms does not exist``, because torchvision registers shape functions for operators that
nobody declared. open_clip and timm import torchvision, so they fail with it, though they use none of these operators.

Declaring the missing operators' schemas is enough for the import; calling one still raises. `torchvision.io` and
`torchvision.ops` stay unavailable. Import this module before open_clip, timm or torchvision.
"""

import importlib
import re
import sys

import torch

_SCHEMAS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library = torch.library.Library("torchvision", "FRAGMENT")  # the declarations live as long as this object


def declare_missing() -> list[str]:
    """Imports torchvision, declaring each operator the import misses. Returns the names that were declared."""
    declared: list[str] = []
    while True:
        try:
            importlib.import_module("torchvision")
            return declared
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None or missing[1] in declared:
                raise
            _library.define(missing[1] + _SCHEMAS)
            declared.append(missing[1])
            for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
                del sys.modules[name]


declare_missing()
