"""open_clip and transformers, imported in the only order that works everywhere: after torchvision's operators (`ugrie.compat`).

Import either from here, not directly, and in a function where not every caller needs it: it takes seconds.
"""

from ugrie.compat import declare_missing

declare_missing()

import open_clip  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
)

__all__ = [
    "AutoConfig",
    "AutoTokenizer",
    "BartConfig",
    "BartForConditionalGeneration",
    "open_clip",
]
