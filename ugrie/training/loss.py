"""What training minimises: the surprise of a filled template, slot by slot and in between.

The loss of a slot is the cross-entropy of its label, over the labels that the slot can take (what `ugrie.model.slots` computes), given
the labels before it. Labels read as context are drawn from their distribution.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from ugrie.model.model import UGRIE
from ugrie.model.trie import Node, Slot
from ugrie.schemes.template import CLOSING, Template

IGNORED = -100


def sentence_loss(
    model: UGRIE,
    prefix: Tensor,
    labels: Mapping[str, np.ndarray],
    template: Template,
    draw: np.random.Generator,
    context_noise: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Two means in nats: the cross-entropy of the template's slots against the targets, and that of everything else.

    The first is over the labels each slot can take. The second is what makes the model write the sentence by itself: the
    literal text, the closing, how a label goes on once it is decided, and that a label follows a literal at all. `prefix` is what
    the mapper makes of the images, [n, prefix_length, d_model]; `labels` by scheme are float32 [n, labels], and every image must
    have all the template's. `context_noise` is as in `draw_context`.
    """
    slots = model.slots(template)
    targets = [labels[scheme.name] for scheme in template.schemes]
    context = draw_context(targets, context_noise, draw)
    tokens, places = _tokens(model, slots, context)
    hidden = model.bart.model(inputs_embeds=prefix, decoder_input_ids=tokens, use_cache=False).last_hidden_state
    vocabulary = linear(hidden, model.bart.lm_head.weight, model.bart.final_logits_bias[0])
    expected = _expected(model, slots, tokens, places, context)
    form = cross_entropy(vocabulary.flatten(0, 1), expected.flatten(), ignore_index=IGNORED)
    loss = hidden.new_zeros(())
    for slot, wanted, chosen, place in zip(slots, targets, context, places, strict=True):
        for node in slot.branches:
            share = wanted @ slot.choices(node)
            reached = share.sum(1)
            rows = np.flatnonzero(_through(slot, node)[chosen] & (reached > 0))
            if not len(rows):
                continue
            # A branch is seen only where the label read leads there. Divided by how likely that was, the mean over draws is exact.
            seen = (1 - context_noise) * reached + context_noise * reached.mean()
            weighted = torch.from_numpy(share[rows] / seen[rows, None]).to(hidden.device)
            children = torch.tensor(node.children, device=hidden.device)
            at = vocabulary[torch.from_numpy(rows), torch.from_numpy(place[rows] + len(node.prefix))]
            logits = at[:, children]
            loss = loss - (weighted * logits.log_softmax(-1)).sum() / len(wanted)
            form = form + (at.logsumexp(1) - logits.logsumexp(1)).sum() / len(wanted) / len(slots)
    return loss / len(slots), form


def draw_context(targets: Sequence[np.ndarray], noise: float, draw: np.random.Generator) -> list[np.ndarray]:
    """The labels that are read in each slot, int64 [n], drawn from the targets, float32 [n, labels].

    The share `noise` of them are other images', so that later slots do not lean on earlier ones more than those deserve.
    """
    context = [(t.cumsum(1) > draw.random((len(t), 1)) * t.sum(1, keepdims=True)).argmax(1) for t in targets]
    foreign = draw.random((len(targets), len(targets[0]))) < noise
    return [np.where(f, c[draw.permutation(len(c))], c) for f, c in zip(foreign, context, strict=True)]


def _tokens(model: UGRIE, slots: Sequence[Slot], context: Sequence[np.ndarray]) -> tuple[Tensor, list[np.ndarray]]:
    """Decoder inputs of the filled sentences, padded at the end, and where each slot's decision is read."""
    start, closing = model.decoder_start, model.tokenizer(CLOSING, add_special_tokens=False)["input_ids"]
    sentences, places = [], [np.zeros(len(c), np.int64) for c in context]
    for row in range(len(context[0])):
        sentence = list(start)
        for slot, chosen, place in zip(slots, context, places, strict=True):
            sentence += slot.literal
            place[row] = len(sentence) - 1
            sentence += slot.labels[chosen[row]]
        sentence += closing
        sentences.append(torch.tensor(sentence))
    padded = torch.nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=model.tokenizer.pad_token_id)
    return padded.to(model.bart.device), places


def _expected(model: UGRIE, slots: Sequence[Slot], tokens: Tensor, places: Sequence[np.ndarray], context: Sequence[np.ndarray]) -> Tensor:
    """The token that follows each one, int64 as `tokens`; IGNORED where it is given, where the slot decides, and in padding."""
    ending = torch.full_like(tokens[:, :1], model.tokenizer.eos_token_id)
    expected = torch.cat([tokens[:, 1:], ending], 1)
    past = tokens == model.tokenizer.pad_token_id
    expected[torch.roll(past, -1, 1) & ~past] = model.tokenizer.eos_token_id
    expected[past] = IGNORED
    expected[:, : len(model.decoder_start) - 1] = IGNORED
    for slot, chosen, place in zip(slots, context, places, strict=True):
        for node in slot.branches:
            rows = np.flatnonzero(_through(slot, node)[chosen])
            expected[torch.from_numpy(rows), torch.from_numpy(place[rows] + len(node.prefix))] = IGNORED
    return expected


def _through(slot: Slot, node: Node) -> np.ndarray:
    """bool [labels]: on whose way a branch lies."""
    return np.array([sequence[: len(node.prefix)] == node.prefix for sequence in slot.sequences])
