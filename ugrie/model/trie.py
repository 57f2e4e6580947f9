"""A template in tokens: the literal ids before each slot, and the slot's labels as a trie.

The trie says which tokens may follow which, so that a label's probability is the product of the choices along its path,
each taken among the tokens that some label allows there. That is what generation constrained to the trie computes, and
the probabilities of a slot's labels add up to one.

Only what a decision needs has to be read by the decoder before the decision: the literal, and the nodes at which labels
part. The rest of the chosen label (its `tail`) is read together with the next literal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ugrie.libraries import PreTrainedTokenizerBase
from ugrie.schemes.template import CLOSING, Template, TemplateError


@dataclass(frozen=True)
class Node:
    """A place in a slot where labels part: the tokens read since the literal, and the tokens that may follow."""

    prefix: tuple[int, ...]
    children: tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A scheme's slot: `literal` ids before it, `labels` as token ids, `end` the token that follows every label."""

    literal: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    end: int

    @cached_property
    def sequences(self) -> tuple[tuple[int, ...], ...]:
        """The labels as they part from each other: one that begins another label is told apart by what follows it."""

        def begins_another(label: tuple[int, ...]) -> bool:
            return any(other != label and other[: len(label)] == label for other in self.labels)

        return tuple((*label, self.end) if begins_another(label) else label for label in self.labels)

    @cached_property
    def branches(self) -> tuple[Node, ...]:
        """Every node with more than one child, shortest prefix first; the first is the root, after the literal."""
        prefixes = sorted({s[:i] for s in self.sequences for i in range(len(s))}, key=lambda p: (len(p), p))
        nodes = (Node(p, tuple(sorted({s[len(p)] for s in self.sequences if s[: len(p)] == p and len(s) > len(p)}))) for p in prefixes)
        return tuple(node for node in nodes if len(node.children) > 1)

    @cached_property
    def read(self) -> tuple[tuple[int, ...], ...]:
        """The non-empty prefixes the decoder must read before the decision: every branch and the way to it."""
        return tuple(sorted({b.prefix[: i + 1] for b in self.branches for i in range(len(b.prefix))}, key=lambda p: (len(p), p)))

    @cached_property
    def edges(self) -> np.ndarray:
        """float32 [labels, choices]: which choices (the branches' children, one after another) lie on a label's path."""
        return np.concatenate([self.choices(node) for node in self.branches], 1)

    def choices(self, node: Node) -> np.ndarray:
        """float32 [labels, children]: which of a branch's children lies on a label's path."""
        depth = len(node.prefix)
        return np.array([[s[: depth + 1] == (*node.prefix, child) for child in node.children] for s in self.sequences], np.float32)

    @cached_property
    def on_path(self) -> np.ndarray:
        """bool [labels, read]: which of the tokens read before the decision belong to a label."""
        return np.array([[label[: len(p)] == p for p in self.read] for label in self.labels], bool).reshape(
            len(self.labels), len(self.read)
        )

    @cached_property
    def tails(self) -> tuple[tuple[int, ...], ...]:
        """What of each label is still to be read once it is chosen."""
        return tuple(label[int(path.sum()) :] for label, path in zip(self.labels, self.on_path, strict=True))


def compile_template(template: Template, tokenizer: PreTrainedTokenizerBase) -> tuple[Slot, ...]:
    """The slots of a template in a tokenizer's ids. The first literal does not include the sentence's opening specials.

    Raises TemplateError for a label the tokenizer has no tokens for, for two labels with the same tokens, and where the
    sentence, tokenized whole, is not the concatenation of its pieces.
    """

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    literals = [ids(text) for text in template.literals]
    closing = ids(CLOSING)
    slots = []
    for i, scheme in enumerate(template.schemes):
        labels = tuple(ids(f" {name}") for name in scheme.label_names)
        for name, label in zip(scheme.label_names, labels, strict=True):
            if not label or tokenizer.unk_token_id in (*label, *literals[i]):
                raise TemplateError(f"this checkpoint's tokenizer has no word for '{name}' of {scheme.name}: it was not trained for it")
        if len(set(labels)) < len(labels):
            raise TemplateError(f"two labels of {scheme.name} have the same tokens")
        after = literals[i + 1] if i + 1 < len(literals) else closing
        slots.append(Slot(literals[i], labels, after[0]))
        for name, label in zip(scheme.label_names, labels, strict=True):
            if ids(f"{template.literals[i]} {name}{CLOSING}") != (*literals[i], *label, *closing):
                raise TemplateError(f"'{name}' of {scheme.name} is tokenized otherwise within a sentence than on its own")
    return tuple(slots)


def sentence_ids(slots: Sequence[Slot], labels: Sequence[int]) -> list[int]:
    """The token ids of the filled sentence up to its last label: literals and labels in turn."""
    return [token for slot, label in zip(slots, labels, strict=True) for token in (*slot.literal, *slot.labels[label])]
