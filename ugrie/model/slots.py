"""Slot filling: one decoder call per slot, with exact probabilities of all its labels.

Generation spends a decoder step on every token, with an output row for every word of the vocabulary, although all but the slots is
known beforehand. Here, one call feeds all tokens up to the decision: the rest of the label chosen before, the literal text, and the
prefixes at which the slot's labels branch. A tree attention mask separates them (SpecInfer, Miao et al., ASPLOS 2024), and the output
head is applied only to the rows that a label can use. A slot's choice becomes a mask over the cached keys and values, so images of one
batch may choose labels of different lengths. What else is known of the labels is pooled with BART's probabilities before one is chosen,
and a label that contradicts an earlier one is not chosen.

The decoder's layers are called one by one, because a tree needs position ids, which transformers' decoder doesn't take: two nodes of the
same depth have the same position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from ugrie.model.bart import Bart
from ugrie.model.trie import Slot


@dataclass(frozen=True)
class Opinion:
    """Log-probabilities of a slot's labels by something else than BART, [batch, labels], and their share in the pool, 0 to 1.

    `correction`, [batch, labels], is added to the pool's log-probabilities, which are then normalised again.
    """

    log_probs: Tensor
    share: float
    correction: Tensor | None = None


@dataclass(frozen=True)
class Filled:
    """What fills a template's slots: for each slot the log-probabilities of its labels, float32 [batch, labels], and the chosen labels,
    int64 [batch].
    """

    log_probs: list[Tensor]
    labels: list[Tensor]


@dataclass(frozen=True)
class _Plan:
    """A slot's constants, on the device. Lengths: t tail, l literal, r prefixes read, L labels, c choices, g groups that agree."""

    fixed: Tensor  # int64 [l + r], tokens that are the same for every image
    offset: Tensor  # int64 [l + r], their positions after the tail
    mask: Tensor  # bool [t + l + r, t + l + r], attention within the call, for tails of full length
    tails: Tensor  # int64 [L, t'], the tokens of each label still to be read, padded (t' is the next call's t)
    tail_lengths: Tensor  # int64 [L]
    on_path: Tensor  # bool [L, r]
    edges: Tensor  # float32 [L, c]
    signs: Tensor  # float32 [g, L], 1 and -1 for labels that contradict each other, also across slots
    branch_at: list[int]  # position of each branch in the call's output
    rows: list[Tensor]  # int64, vocabulary rows of each branch's children

    @classmethod
    def of(cls, slot: Slot, literal: list[int], tail: int, signs: np.ndarray, device: torch.device) -> "_Plan":
        """Make the plan of a slot whose call starts with tails of up to `tail` tokens and then `literal`."""
        known, n = tail + len(literal), tail + len(literal) + len(slot.read)
        mask = torch.ones(n, n, dtype=torch.bool).tril()
        for a, prefix in enumerate(slot.read):
            for b, other in enumerate(slot.read):
                mask[known + a, known + b] = prefix[: len(other)] == other
        position = {prefix: known + a for a, prefix in enumerate(slot.read)} | {(): known - 1}
        offsets = [*range(len(literal)), *(len(literal) + len(prefix) - 1 for prefix in slot.read)]
        tails = torch.nn.utils.rnn.pad_sequence([torch.tensor(t, dtype=torch.long) for t in slot.tails], batch_first=True)
        return cls(
            fixed=torch.tensor([*literal, *(prefix[-1] for prefix in slot.read)], device=device),
            offset=torch.tensor(offsets, device=device),
            mask=mask.to(device),
            tails=tails.to(device),
            tail_lengths=torch.tensor([len(t) for t in slot.tails], device=device),
            on_path=torch.from_numpy(slot.on_path).to(device),
            edges=torch.from_numpy(slot.edges).to(device),
            signs=torch.from_numpy(signs).to(device),
            branch_at=[position[node.prefix] for node in slot.branches],
            rows=[torch.tensor(node.children, device=device) for node in slot.branches],
        )


class SlotFiller:
    """Fills one template's slots with one BART. Build it once: it holds only constants of the template.

    `bart` may also be transformers' BartForConditionalGeneration. `start` are the special tokens with which the decoder starts every
    sentence. `signs`, float32 [groups, labels] for each slot, are 1 and -1 for labels that contradict each other within and across the
    slots of a group, and 0 for others (`ugrie.model.consistency.slot_signs`); default: none do. Raises ValueError if the template is too
    long.
    """

    def __init__(self, bart: Bart, slots: Sequence[Slot], start: Sequence[int], signs: Sequence[np.ndarray] | None = None):
        self.bart = bart
        config, device = bart.config, bart.device
        longest = len(start) + sum(len(s.literal) + len(s.read) + max(map(len, s.tails)) for s in slots)
        if longest > config.max_position_embeddings:
            raise ValueError(
                f"the template may need {longest} tokens, but this BART reads {config.max_position_embeddings}: ask for fewer schemes"
            )
        self.plans: list[_Plan] = []
        tail = 0
        for i, slot in enumerate(slots):
            literal = [*start, *slot.literal] if i == 0 else [*slot.literal]
            none = np.zeros((0, len(slot.labels)), np.float32)
            self.plans.append(_Plan.of(slot, literal, tail, none if signs is None else signs[i], device))
            tail = self.plans[-1].tails.shape[1]
        self.length = sum(len(p.mask) for p in self.plans)

    @torch.inference_mode()
    def fill(self, encoded: Tensor, opinions: Sequence[Opinion] = ()) -> Filled:
        """Return the log-probabilities of each slot's labels, given the chosen labels of the slots before it, and its chosen label.

        `encoded` is the BART encoder's output, [batch, prefix length, d_model]. The chosen label is the most likely one that does not
        contradict those chosen before. With `opinions`, one for each slot, the log-probabilities are the logarithmic opinion pool: the
        weighted mean, normalised (Genest and Zidek, Statistical Science 1, 1986), corrected where an opinion says so.
        """
        decoder: Any = self.bart.model.decoder
        batch, device = len(encoded), encoded.device
        heads = self.bart.config.decoder_attention_heads
        size = (len(decoder.layers), 2, batch, heads, self.length, encoded.shape[-1] // heads)
        cache = torch.empty(size, dtype=encoded.dtype, device=device)
        cross = [
            [_split(projection(encoded), heads) for projection in (a.k_proj, a.v_proj)] for a in (x.encoder_attn for x in decoder.layers)
        ]
        visible = torch.zeros(batch, 0, dtype=torch.bool, device=device)  # the cached tokens that belong to an image's sentence
        length = torch.zeros(batch, 1, dtype=torch.long, device=device)  # the number of these tokens
        tail = tail_valid = torch.zeros(batch, 0, dtype=torch.long, device=device)
        side = torch.zeros(batch, len(self.plans[0].signs), device=device)  # the sign of the labels so far in each group
        filled = Filled([], [])
        for plan, opinion in zip_longest(self.plans, opinions):
            width, past = tail.shape[1], visible.shape[1]
            steps = torch.arange(width, device=device)
            valid = steps < tail_valid if width else torch.zeros(batch, 0, dtype=torch.bool, device=device)
            tail_length = valid.sum(1, keepdim=True)
            tokens = torch.cat([tail, plan.fixed.expand(batch, -1)], 1)
            positions = torch.cat([length + steps, length + tail_length + plan.offset], 1)
            used = torch.cat([valid, valid.new_ones(batch, len(plan.fixed))], 1)
            mask = torch.cat([visible[:, None].expand(-1, len(plan.mask), -1), plan.mask & used[:, None]], 2)[:, None]
            hidden = self._decode(tokens, positions, mask, cache, cross, past)

            head, bias = self.bart.lm_head.weight, self.bart.final_logits_bias[0]
            choices = [
                (linear(hidden[:, at], head[rows]) + bias[rows]).float().log_softmax(-1)
                for at, rows in zip(plan.branch_at, plan.rows, strict=True)
            ]
            scores = torch.cat(choices, 1) @ plan.edges.T
            if opinion is not None and opinion.share:
                scores = torch.lerp(scores, opinion.log_probs, opinion.share).log_softmax(-1)
            if opinion is not None and opinion.correction is not None:
                scores = (scores + opinion.correction).log_softmax(-1)
            chosen = scores.masked_fill(side @ plan.signs < 0, -torch.inf).argmax(1)
            side = torch.where(side == 0, plan.signs.T[chosen], side)
            filled.log_probs.append(scores)
            filled.labels.append(chosen)

            read = plan.on_path[chosen]
            literal = len(plan.fixed) - read.shape[1]
            visible = torch.cat([visible, used[:, : width + literal], read], 1)
            length = length + tail_length + literal + read.sum(1, keepdim=True)
            tail, tail_valid = plan.tails[chosen], plan.tail_lengths[chosen, None]
        return filled

    def _decode(self, tokens: Tensor, positions: Tensor, mask: Tensor, cache: Tensor, cross: list[list[Tensor]], past: int) -> Tensor:
        """Return the decoder's output for `tokens`, [batch, n, d_model], and add their keys and values to the cache."""
        decoder: Any = self.bart.model.decoder
        end = past + tokens.shape[1]
        table = decoder.embed_positions
        x = decoder.layernorm_embedding(decoder.embed_tokens(tokens) + table.weight[positions + table.offset])
        for layer, (keys, values), (cross_keys, cross_values) in zip(decoder.layers, cache, cross, strict=True):
            attention, heads = layer.self_attn, layer.self_attn.num_heads
            keys[:, :, past:end] = _split(attention.k_proj(x), heads)
            values[:, :, past:end] = _split(attention.v_proj(x), heads)
            x = layer.self_attn_layer_norm(x + _attend(attention, x, keys[:, :, :end], values[:, :, :end], mask))
            x = layer.encoder_attn_layer_norm(x + _attend(layer.encoder_attn, x, cross_keys, cross_values, None))
            x = layer.final_layer_norm(x + layer.fc2(layer.activation_fn(layer.fc1(x))))
        return x


def _split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(attention: Any, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    queries = _split(attention.q_proj(x), attention.num_heads)
    return attention.out_proj(scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2).flatten(2))
