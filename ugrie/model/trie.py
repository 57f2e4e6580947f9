"""A template in tokens: the literal before each slot, and the slot's labels as a trie.

A label's probability is the product of the choices along its path in the trie. Each choice is among the tokens with which some label
continues there. Generation constrained to the trie computes the same, and the probabilities of a slot's labels add up to one.

Before a decision, the decoder reads only what the decision needs: the literal, and the prefixes at which labels branch. The rest of
the chosen label (its `tail`) is read together with the next literal.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tokenizers import Tokenizer

from ugrie.model.tokenizer import UNKNOWN
from ugrie.schemes.template import CLOSING, Template, TemplateError


@dataclass(frozen=True)
class Node:
    """A node of the trie: the tokens since the literal, and the tokens that may follow."""

    prefix: tuple[int, ...]
    children: tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A scheme's slot, in token ids: the `literal` before it, its `labels`, and `end`, the token that follows every label."""

    literal: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    end: int

    @cached_property
    def sequences(self) -> tuple[tuple[int, ...], ...]:
        """The labels made distinguishable: `end` is appended to a label that is a prefix of another."""

        def is_prefix(label: tuple[int, ...]) -> bool:
            return any(other != label and other[: len(label)] == label for other in self.labels)

        return tuple((*label, self.end) if is_prefix(label) else label for label in self.labels)

    @cached_property
    def branches(self) -> tuple[Node, ...]:
        """The nodes with more than one child, shortest prefix first. The first is the root, right after the literal."""
        prefixes = sorted({s[:i] for s in self.sequences for i in range(len(s))}, key=lambda p: (len(p), p))
        nodes = (Node(p, tuple(sorted({s[len(p)] for s in self.sequences if s[: len(p)] == p and len(s) > len(p)}))) for p in prefixes)
        return tuple(node for node in nodes if len(node.children) > 1)

    @cached_property
    def read(self) -> tuple[tuple[int, ...], ...]:
        """The non-empty prefixes that the decoder must read before the decision: all branches and the nodes that lead to them."""
        return tuple(sorted({b.prefix[: i + 1] for b in self.branches for i in range(len(b.prefix))}, key=lambda p: (len(p), p)))

    @cached_property
    def edges(self) -> np.ndarray:
        """float32 [labels, choices]: 1 for the choices on a label's path. Choices are the children of all branches, in order."""
        return np.concatenate([self.choices(node) for node in self.branches], 1)

    def choices(self, node: Node) -> np.ndarray:
        """Return 1 for the child of a branch that is on a label's path: float32 [labels, children]."""
        depth = len(node.prefix)
        return np.array([[s[: depth + 1] == (*node.prefix, child) for child in node.children] for s in self.sequences], np.float32)

    @cached_property
    def on_path(self) -> np.ndarray:
        """bool [labels, read]: true for the prefixes in `read` that belong to a label."""
        return np.array([[label[: len(p)] == p for p in self.read] for label in self.labels], bool).reshape(
            len(self.labels), len(self.read)
        )

    @cached_property
    def tails(self) -> tuple[tuple[int, ...], ...]:
        """The tokens of each label that are still to be read after the decision."""
        return tuple(label[int(path.sum()) :] for label, path in zip(self.labels, self.on_path, strict=True))


def compile_template(template: Template, tokenizer: Tokenizer) -> tuple[Slot, ...]:
    """Return the slots of a template in a tokenizer's ids. The first literal does not include the special tokens at the start.

    Raises TemplateError for a label that the tokenizer has no tokens for, for two labels with the same tokens, and for a label whose
    tokens in the sentence differ from those of the separate pieces.
    """

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    literals = [ids(text) for text in template.literals]
    closing = ids(CLOSING)
    slots = []
    for i, scheme in enumerate(template.schemes):
        labels = tuple(ids(f" {name}") for name in scheme.label_names)
        for name, label in zip(scheme.label_names, labels, strict=True):
            if not label or tokenizer.token_to_id(UNKNOWN) in (*label, *literals[i]):
                raise TemplateError(f"this checkpoint's tokenizer has no token for '{name}' of {scheme.name}: it was not trained for it")
        if len(set(labels)) < len(labels):
            raise TemplateError(f"two labels of {scheme.name} have the same tokens")
        after = literals[i + 1] if i + 1 < len(literals) else closing
        slots.append(Slot(literals[i], labels, after[0]))
        for name, label in zip(scheme.label_names, labels, strict=True):
            if ids(f"{template.literals[i]} {name}{CLOSING}") != (*literals[i], *label, *closing):
                raise TemplateError(f"'{name}' of {scheme.name} is tokenized differently in a sentence and on its own")
    return tuple(slots)
