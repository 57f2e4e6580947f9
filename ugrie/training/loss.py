"""The training loss: cross-entropy of the filled template, over the labels in its slots and over the text around them.

A slot's loss is the cross-entropy over the labels that it can take (the log-probabilities that `ugrie.model.slots` computes), given
the labels before it. Those labels, the context, are drawn from their target distributions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from ugrie.model.model import UGRIE
from ugrie.model.tokenizer import END, PADDING
from ugrie.model.trie import Node, Slot
from ugrie.schemes.template import CLOSING, Template

IGNORED = -100  # the target of a position that `cross_entropy` leaves out


def sentence_loss(
    model: UGRIE,
    prefix: Tensor,
    labels: Mapping[str, np.ndarray],
    template: Template,
    rng: np.random.Generator,
    context_noise: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return two mean losses in nats: of the template's slots, and of the sentence's form, which is everything else.

    The slot loss is over the labels that each slot can take. The form loss teaches the model to write the sentence without
    constraints: the literal text, the closing, how a label continues once it is decided, and that a label follows a literal at all.

    `prefix` is the mapper's output for the images, [n, prefix_length, d_model]. `labels` by scheme are float32 [n, labels]; every
    image must have all the template's. `context_noise` is as in `draw_context`.
    """
    slots = model.slots(template)
    targets = [labels[scheme.name] for scheme in template.schemes]
    context = draw_context(targets, context_noise, rng)
    tokens, positions = _decoder_inputs(model, slots, context)
    hidden = model.bart.model(inputs_embeds=prefix, decoder_input_ids=tokens, use_cache=False).last_hidden_state
    logits = linear(hidden, model.bart.lm_head.weight, model.bart.final_logits_bias[0])
    form_targets = _form_targets(model, slots, tokens, positions, context)
    form_loss = cross_entropy(logits.flatten(0, 1), form_targets.flatten(), ignore_index=IGNORED)
    slot_loss = hidden.new_zeros(())
    for slot, target, chosen, position in zip(slots, targets, context, positions, strict=True):
        for node in slot.branches:
            child_probs = target @ slot.choices(node)
            reach_probs = child_probs.sum(1)
            rows = np.flatnonzero(_below(slot, node)[chosen] & (reach_probs > 0))
            if not len(rows):
                continue
            # A branch enters the loss only if the context's label lies below it. Weights of 1/P(that) keep the mean over draws unbiased.
            read_probs = (1 - context_noise) * reach_probs + context_noise * reach_probs.mean()
            weights = torch.from_numpy(child_probs[rows] / read_probs[rows, None]).to(hidden.device)
            children = torch.tensor(node.children, device=hidden.device)
            node_logits = logits[torch.from_numpy(rows), torch.from_numpy(position[rows] + len(node.prefix))]
            child_logits = node_logits[:, children]
            slot_loss = slot_loss - (weights * child_logits.log_softmax(-1)).sum() / len(target)
            form_loss = form_loss + (node_logits.logsumexp(1) - child_logits.logsumexp(1)).sum() / len(target) / len(slots)
    return slot_loss / len(slots), form_loss


def draw_context(targets: Sequence[np.ndarray], noise: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the label that the decoder reads in each slot, int64 [n], from the targets, float32 [n, labels].

    A share `noise` of them is another image's, so that later slots don't rely on earlier labels more than these deserve.
    """
    context = [(t.cumsum(1) > rng.random((len(t), 1)) * t.sum(1, keepdims=True)).argmax(1) for t in targets]
    is_foreign = rng.random((len(targets), len(targets[0]))) < noise
    return [np.where(f, c[rng.permutation(len(c))], c) for f, c in zip(is_foreign, context, strict=True)]


def _decoder_inputs(model: UGRIE, slots: Sequence[Slot], context: Sequence[np.ndarray]) -> tuple[Tensor, list[np.ndarray]]:
    """Return the tokens of the filled sentences, padded at the end, and the position of each slot's decision, int64 [n] by slot."""
    start, closing = model.decoder_start, model.tokenizer.encode(CLOSING, add_special_tokens=False).ids
    sentences, positions = [], [np.zeros(len(c), np.int64) for c in context]
    for row in range(len(context[0])):
        sentence = list(start)
        for slot, chosen, position in zip(slots, context, positions, strict=True):
            sentence += slot.literal
            position[row] = len(sentence) - 1
            sentence += slot.labels[chosen[row]]
        sentence += closing
        sentences.append(torch.tensor(sentence))
    padded = torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=_id(model, PADDING))
    return padded.to(model.bart.device), positions


def _form_targets(
    model: UGRIE, slots: Sequence[Slot], tokens: Tensor, positions: Sequence[np.ndarray], context: Sequence[np.ndarray]
) -> Tensor:
    """Return each position's next token, int64 as `tokens`; IGNORED in padding, in the opening specials and where a slot decides."""
    ending = torch.full_like(tokens[:, :1], _id(model, END))
    targets = torch.cat([tokens[:, 1:], ending], 1)
    padding = tokens == _id(model, PADDING)
    targets[torch.roll(padding, -1, 1) & ~padding] = _id(model, END)
    targets[padding] = IGNORED
    targets[:, : len(model.decoder_start) - 1] = IGNORED
    for slot, chosen, position in zip(slots, context, positions, strict=True):
        for node in slot.branches:
            rows = np.flatnonzero(_below(slot, node)[chosen])
            targets[torch.from_numpy(rows), torch.from_numpy(position[rows] + len(node.prefix))] = IGNORED
    return targets


def _below(slot: Slot, node: Node) -> np.ndarray:
    """Return which labels lie below a node of the slot's trie, bool [labels]."""
    return np.array([sequence[: len(node.prefix)] == node.prefix for sequence in slot.sequences])


def _id(model: UGRIE, special: str) -> int:
    token = model.tokenizer.token_to_id(special)
    assert token is not None
    return token
