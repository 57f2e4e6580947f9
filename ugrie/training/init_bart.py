"""The BART that training starts from, with its tokenizer: one with random weights, or a pretrained one.

A checkpoint states BART's shape itself (`Config.bart`). So a pretrained BART is copied into a `BartConfig` of its shape alone: the
model that is trained is the model that is loaded later, whatever its authors' configuration says of generation or other tasks.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tokenizers import Tokenizer

from ugrie.libraries import AutoConfig, AutoTokenizer, BartConfig, BartForConditionalGeneration
from ugrie.model.checkpoint import BartShape
from ugrie.model.tokenizer import BEGIN, END, PADDING, SPECIAL, phrase_tokenizer
from ugrie.schemes.scheme import Scheme
from ugrie.training.recipe import Bart, RecipeError

COPIED_FIELDS = (
    "vocab_size",
    "d_model",
    "encoder_layers",
    "decoder_layers",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "max_position_embeddings",
    "activation_function",
    "scale_embedding",
    "tie_word_embeddings",
    "dropout",
    "attention_dropout",
    "activation_dropout",
)


def new_bart(shape: Bart, schemes: Sequence[Scheme]) -> tuple[dict[str, Any], BartForConditionalGeneration, Tokenizer]:
    """Return the arguments of `BartConfig`, a BART of that shape with random weights, and a tokenizer of the schemes' phrases."""
    tokenizer = phrase_tokenizer(schemes)
    config = {
        "vocab_size": tokenizer.get_vocab_size(),
        "d_model": shape.d_model,
        "encoder_layers": shape.layers,
        "decoder_layers": shape.layers,
        "encoder_attention_heads": shape.heads,
        "decoder_attention_heads": shape.heads,
        "encoder_ffn_dim": 4 * shape.d_model,
        "decoder_ffn_dim": 4 * shape.d_model,
        "max_position_embeddings": 128,
        "dropout": shape.dropout,
        "forced_eos_token_id": None,
    }
    return config, BartForConditionalGeneration(BartConfig(**config, init_std=shape.d_model**-0.5)), tokenizer


def pretrained_bart(name_or_folder: str) -> tuple[dict[str, Any], BartForConditionalGeneration, Tokenizer]:
    """Return the same of a pretrained BART: from Hugging Face's hub (fetched at first use), or from a folder as transformers writes it.

    Raises RecipeError if it can't be had, is no BART, or is incomplete, and if its tokenizer is another model's.
    """
    problem = f"no BART could be read from the folder {name_or_folder}"
    if not Path(name_or_folder).is_dir():
        problem = f"bart: there is no folder {name_or_folder}, and no BART of that name could be fetched"
    try:
        authors_config = AutoConfig.from_pretrained(name_or_folder)
        if authors_config.model_type != "bart":
            raise RecipeError(f"bart: {name_or_folder} is a model of the kind '{authors_config.model_type}', not a BART")
        pretrained, loading = BartForConditionalGeneration.from_pretrained(name_or_folder, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(name_or_folder).backend_tokenizer
        tokenizer.add_special_tokens(list(SPECIAL))
        tokenizer.no_padding()  # a tokenizer is saved with what it was last used with
        tokenizer.no_truncation()
    except RecipeError:
        raise
    except Exception as error:  # transformers, tokenizers and the hub's client raise errors of many kinds
        raise RecipeError(f"{problem}: {next(iter(str(error).splitlines()), type(error).__name__)}") from error
    if loading["missing_keys"]:
        raise RecipeError(f"{problem}: it lacks the weights {', '.join(sorted(loading['missing_keys'])[:3])}")
    specials = [tokenizer.token_to_id(token) for token in (BEGIN, PADDING, END)]
    stated = [authors_config.bos_token_id, authors_config.pad_token_id, authors_config.eos_token_id]
    if specials != stated or tokenizer.get_vocab_size() > authors_config.vocab_size:
        raise RecipeError(
            f"{problem}: its tokenizer has {tokenizer.get_vocab_size()} tokens and <s>, <pad>, </s> at {specials}, "
            f"its config.json says {authors_config.vocab_size} and {stated}"
        )
    config = {name: getattr(authors_config, name) for name in COPIED_FIELDS} | {"forced_eos_token_id": None}
    try:
        BartShape.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"{problem}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    bart = BartForConditionalGeneration(BartConfig(**config))
    bart.load_state_dict(pretrained.state_dict())
    return config, bart, tokenizer
