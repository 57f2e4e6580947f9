"""open_clip and transformers, imported in the one order that works everywhere: torchvision's operators first.

Modules of UGRIE that need either at run time take it from here.
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
