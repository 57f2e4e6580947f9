"""UGRIE's BART is transformers' BART, weight by weight and number by number."""

import pytest
import torch
from pydantic import ValidationError

from ugrie.libraries import BartConfig
from ugrie.model.bart import Bart
from ugrie.model.checkpoint import BartShape

SHAPES = [
    {},
    {"encoder_layers": 3, "encoder_attention_heads": 4},
    {"activation_function": "relu", "scale_embedding": True},
    {"activation_function": "gelu_new", "tie_word_embeddings": False},
    {"activation_function": "silu", "encoder_ffn_dim": 5},
    {"activation_function": "tanh"},
]


def ours(theirs):
    bart = Bart(BartShape.model_validate(theirs.config.to_dict())).eval()
    bart.load_state_dict(theirs.state_dict())
    return bart


def test_a_shape_that_states_nothing_is_transformers_default():
    default = BartConfig()
    assert {name: getattr(default, name) for name in BartShape.model_fields} == BartShape().model_dump()


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_have_the_same_names_and_ties(make_bart, shape):
    theirs = make_bart(20, **shape)
    bart = ours(theirs)
    assert bart.state_dict().keys() == theirs.state_dict().keys()
    tied = {name for name, weight in bart.named_parameters(remove_duplicate=False) if weight is bart.lm_head.weight}
    assert tied == {name for name, weight in theirs.named_parameters(remove_duplicate=False) if weight is theirs.lm_head.weight}
    assert len(tied) == (1 if shape.get("tie_word_embeddings") is False else 4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("length", [1, 7])
@torch.inference_mode()
def test_the_encoder_computes_the_same(make_bart, shape, length):
    theirs = make_bart(20, **shape).double()
    prefix = torch.randn(5, length, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(theirs).double().model.encoder(prefix), theirs.model.encoder(inputs_embeds=prefix).last_hidden_state)


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_words_and_positions_are_the_same(make_bart, shape):
    theirs = make_bart(20, **shape)
    bart, tokens = ours(theirs), torch.arange(20)
    torch.testing.assert_close(bart.model.decoder.embed_tokens(tokens), theirs.model.decoder.embed_tokens(tokens))
    positions = theirs.model.decoder.embed_positions(torch.zeros(1, 6))[0]
    table = bart.model.decoder.embed_positions
    torch.testing.assert_close(table.weight[torch.arange(6) + table.offset], positions.reshape(6, -1))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"d_model": 64, "encoder_attention_heads": 3}, "d_model = 64 can't be divided by 3 attention heads"),
        ({"activation_function": "swiglu"}, "activation_function"),
        ({"vocab_size": 0}, "vocab_size"),
    ],
)
def test_an_impossible_shape_is_refused(stated, message):
    with pytest.raises(ValidationError, match=message):
        BartShape.model_validate(stated)
