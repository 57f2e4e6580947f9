"""open_clip and transformers, imported in the only order that works everywhere: after torchvision's operators (`ugrie.compat`).

Import either from here, not directly.
"""

import ugrie.compat  # noqa: F401  isort: skip

import open_clip
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

__all__ = [
    "AutoConfig",
    "AutoTokenizer",
    "BartConfig",
    "BartForConditionalGeneration",
    "PreTrainedTokenizerBase",
    "PreTrainedTokenizerFast",
    "open_clip",
]
