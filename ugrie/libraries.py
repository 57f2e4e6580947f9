"""timm, open_clip and transformers, each imported when it is first asked for, in the way that works everywhere (`ugrie.compat`).

    from ugrie.libraries import open_clip

Import them from here, not directly, and in a function where not every caller needs them: each takes seconds.
"""

from importlib import import_module
from typing import Any

from ugrie.compat import declare_missing, import_light


def __getattr__(name: str) -> Any:
    if name in ("timm", "open_clip"):
        return import_light(name)
    if name in ("AutoConfig", "AutoTokenizer", "BartConfig", "BartForConditionalGeneration"):
        declare_missing()
        return getattr(import_module("transformers"), name)
    raise AttributeError(f"ugrie.libraries has no {name}")
