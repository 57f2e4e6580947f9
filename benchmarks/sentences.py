"""Filled sentences in tokens."""

from collections.abc import Sequence

from ugrie.model.trie import Slot


def sentence_ids(slots: Sequence[Slot], labels: Sequence[int]) -> list[int]:
    """Return the token ids of a filled sentence up to its last label: literals and labels in turn."""
    return [token for slot, label in zip(slots, labels, strict=True) for token in (*slot.literal, *slot.labels[label])]
