"""Tokenizer for a BART trained from scratch: each phrase of the template is one token.

"Overall, the mood is positive." is five tokens: the opening, the clause's literal text, the label, the closing and the end. The
sentence is natural language, and the decoder reads only two tokens per clause. It is an ordinary fast tokenizer, saved and loaded as
tokenizer.json. Nothing else in UGRIE depends on it: a pretrained BART keeps its own.
"""

import re
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from ugrie.schemes.scheme import Scheme
from ugrie.schemes.template import CLOSING, OPENING, literal

SPECIAL = BEGIN, PADDING, END, UNKNOWN = "<s>", "<pad>", "</s>", "<unk>"  # ids 0, 1, 2, 3 as in BART


def phrase_tokenizer(schemes: Sequence[Scheme]) -> Tokenizer:
    """Make a tokenizer whose tokens are the opening, all literals and labels of the schemes, and the closing."""
    phrases = [OPENING, CLOSING]
    for scheme in schemes:
        phrases += [literal(scheme), *(f" {name}" for name in scheme.label_names)]
    vocab = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL, *phrases]))}
    longest_first = sorted(dict.fromkeys(phrases), key=len, reverse=True)
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    # A phrase ends at the end of a word: " calm" must not match in " calmly". The longest comes first: " very pleasant", not " very".
    pattern = "|".join(re.escape(p).replace("\\ ", " ") + (r"\b" if p[-1].isalnum() else "") for p in longest_first)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocab["<s>"]), ("</s>", vocab["</s>"])]
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer
