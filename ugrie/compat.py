"""Import torchvision without its compiled operators, and timm and open_clip without most of torchvision.

PyPI's torchvision is built against CUDA. On a CPU build of torch its extension is not loaded, and the import fails with
``operator torchvision::nms does not exist``: torchvision registers shape functions for operators that are not declared. open_clip
and timm import torchvision, so they fail too, although they use none of these operators.

Declaring the missing operators' schemas is enough for the import; calling one still raises. `torchvision.io` and
`torchvision.ops` stay unavailable. `ugrie.libraries` declares them before it imports transformers.

It imports timm and open_clip with `import_light`, which takes less than half as long: they need only torchvision's transforms, and
PyTorch's compiler only once something is compiled.
"""

import functools
import importlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library = torch.library.Library("torchvision", "FRAGMENT")  # the declarations last as long as this object
_importing = threading.RLock()  # what is imported meanwhile must not see torchvision in part


def declare_missing() -> list[str]:
    """Import torchvision, declaring each operator that is missing. Returns the names of the declared operators."""
    declared: list[str] = []
    with _importing:
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
                _forget("torchvision")


def import_light(name: str) -> ModuleType:
    """Import timm or open_clip without torchvision's operators and models, and without torch's compiler."""
    with _importing:
        if name not in sys.modules and "torchvision" not in sys.modules:
            try:
                with _only_transforms(), _compiler_later():
                    return importlib.import_module(name)
            except (ImportError, AttributeError, RuntimeError):  # a version that needs more
                _forget(name)
        declare_missing()
        return importlib.import_module(name)


def _forget(package: str) -> None:
    """Let a package be imported anew."""
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        del sys.modules[name]


@contextmanager
def _only_transforms() -> Iterator[None]:
    """Within the context, torchvision and torchvision.ops are packages whose modules can be imported, and which import none themselves."""
    try:
        path = None
        for name in ("torchvision", "torchvision.ops"):
            spec: ModuleSpec | None = PathFinder.find_spec(name, path)
            if spec is None:
                raise ImportError(f"there is no {name}")
            package = sys.modules[name] = ModuleType(name)
            package.__spec__, package.__path__ = spec, path = spec, list(spec.submodule_search_locations or ())
        yield
    finally:
        _forget("torchvision")  # who imports it later gets all of it


@contextmanager
def _compiler_later() -> Iterator[None]:
    """Within the context, `torch.compiler.disable` imports no compiler. It takes effect in calls after the compiler is imported."""
    disable = torch.compiler.disable

    def later(function: Callable[..., Any] | None = None, recursive: bool = True, *, reason: str | None = None) -> Any:
        if function is None:
            return functools.partial(later, recursive=recursive, reason=reason)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            run = disable(function, recursive, reason=reason) if "torch._dynamo" in sys.modules else function
            return run(*args, **kwargs)

        return call

    torch.compiler.disable = later
    try:
        yield
    finally:
        torch.compiler.disable = disable
