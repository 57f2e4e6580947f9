"""BART (Lewis et al., ACL 2020) for inference: its weights, its encoder, and its decoder's layers, which `ugrie.model.slots` calls.

The weights have the names that transformers gives them, so that each loads the other's. transformers' own model is imported only to
train and to `generate`: its import takes as long as all else that a worker imports.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention

from ugrie.model.checkpoint import BartShape

OFFSET = 2  # of a position in the table of positions, as in fairseq's BART
ACTIVATIONS = {"gelu": nn.GELU(), "gelu_new": nn.GELU("tanh"), "relu": nn.ReLU(), "silu": nn.SiLU(), "tanh": nn.Tanh()}


class Bart(nn.Module):
    """The model with its output head. As transformers' BartForConditionalGeneration, in evaluation."""

    def __init__(self, config: BartShape):
        super().__init__()
        self.config = config
        self.model = Model(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.final_logits_bias: Tensor
        self.register_buffer("final_logits_bias", self.lm_head.weight.new_zeros(1, config.vocab_size))
        if config.tie_word_embeddings:
            for words in (self.lm_head, self.model.encoder.embed_tokens, self.model.decoder.embed_tokens):
                words.weight = self.model.shared.weight

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device


class Model(nn.Module):
    """The encoder and the decoder, with the words that they share."""

    def __init__(self, config: BartShape):
        super().__init__()
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)


class Positions(nn.Embedding):
    """The learned positions."""

    offset = OFFSET

    def __init__(self, positions: int, width: int):
        super().__init__(positions + OFFSET, width)


class Words(nn.Embedding):
    """The words' embeddings, [tokens, d_model], multiplied by `scale`."""

    def __init__(self, words: int, width: int, scale: float):
        super().__init__(words, width)
        self.scale = scale

    def forward(self, tokens: Tensor) -> Tensor:
        return embedding(tokens, self.weight) * self.scale


class Stack(nn.Module):
    """What encoder and decoder have in common before their layers."""

    def __init__(self, config: BartShape):
        super().__init__()
        width = config.d_model
        self.embed_tokens = Words(config.vocab_size, width, width**0.5 if config.scale_embedding else 1.0)
        self.embed_positions = Positions(config.max_position_embeddings, width)
        self.layernorm_embedding = nn.LayerNorm(width)


class Encoder(Stack):
    """Turns a prefix of embeddings into the same number of vectors that the decoder attends to."""

    def __init__(self, config: BartShape):
        super().__init__(config)
        heads, inner = config.encoder_attention_heads, config.encoder_ffn_dim
        self.layers = nn.ModuleList(EncoderLayer(config, heads, inner) for _ in range(config.encoder_layers))

    def forward(self, prefix: Tensor) -> Tensor:
        """Encode a prefix [batch, length, d_model]. Returns the same shape."""
        x = self.layernorm_embedding(prefix + self.embed_positions.weight[OFFSET : OFFSET + prefix.shape[1]])
        for layer in self.layers:
            x = layer(x)
        return x


class Decoder(Stack):
    """The decoder's weights. `ugrie.model.slots` runs them."""

    def __init__(self, config: BartShape):
        super().__init__(config)
        heads, inner = config.decoder_attention_heads, config.decoder_ffn_dim
        self.layers = nn.ModuleList(DecoderLayer(config, heads, inner) for _ in range(config.decoder_layers))


class Attention(nn.Module):
    """Multi-head attention's projections; called, self-attention of every position to all others."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.num_heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A layer's weights: self-attention and feed-forward network, each with its normalisation after the sum."""

    def __init__(self, config: BartShape, heads: int, inner: int):
        super().__init__()
        width = config.d_model
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.activation_fn = ACTIVATIONS[config.activation_function]
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)


class EncoderLayer(Layer):
    def forward(self, x: Tensor) -> Tensor:
        x = self.self_attn_layer_norm(x + self.self_attn(x))
        return self.final_layer_norm(x + self.fc2(self.activation_fn(self.fc1(x))))


class DecoderLayer(Layer):
    """Attends to the encoder's vectors, too."""

    def __init__(self, config: BartShape, heads: int, inner: int):
        super().__init__(config, heads, inner)
        self.encoder_attn = Attention(config.d_model, heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
