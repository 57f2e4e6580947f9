"""The tokenizer of a BART that was trained from scratch: the template's phrases are its words.

"Overall, the mood is positive." is five tokens: the opening, the clause's literal text, the label, the closing, the end.
The sentence stays natural language while the decoder reads two tokens a clause. It is an ordinary fast tokenizer, saved
and loaded as tokenizer.json; nothing else in UGRIE depends on it, and a pretrained BART keeps its own.
"""

import re
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from ugrie.libraries import PreTrainedTokenizerFast
from ugrie.schemes.scheme import Scheme
from ugrie.schemes.template import CLOSING, OPENING, literal

SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}  # ids 0, 1, 2, 3 as in BART


def phrase_tokenizer(schemes: Sequence[Scheme]) -> PreTrainedTokenizerFast:
    """A tokenizer whose words are the opening, every literal and label of the schemes, and the closing."""
    phrases = [OPENING, CLOSING]
    for scheme in schemes:
        phrases += [literal(scheme), *(f" {name}" for name in scheme.label_names)]
    vocab = {word: i for i, word in enumerate(dict.fromkeys([*SPECIAL.values(), *phrases]))}
    longest_first = sorted(dict.fromkeys(phrases), key=len, reverse=True)
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=SPECIAL["unk_token"]))
    # A phrase ends where a word ends: " very" must not be cut out of " very pleasant", nor " calm" out of " calmly".
    pattern = "|".join(re.escape(p).replace("\\ ", " ") + (r"\b" if p[-1].isalnum() else "") for p in longest_first)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocab["<s>"]), ("</s>", vocab["</s>"])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL)
