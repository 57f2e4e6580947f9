"""Contradicting labels of an image: one has positive, the other negative polarity."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np


def contradicting(polarities: Mapping[str, Sequence[str | None]], choices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return which of n images have contradicting labels, bool [n], for each pair of schemes.

    Only schemes with labels of both polarities count. With several pairs, "any" has the images that contradict in at least one.
    `polarities` lists the polarity of each label of a scheme, in order. `choices`, int [n], are the labels of the images.
    """
    signs = {}
    for scheme, names in polarities.items():
        sign = np.array([{"positive": 1, "negative": -1}.get(name or "", 0) for name in names])
        if {1, -1} <= set(sign.tolist()):
            signs[scheme] = sign[choices[scheme]]
    pairs = {f"{a} and {b}": signs[a] * signs[b] < 0 for a, b in combinations(signs, 2)}
    return pairs | {"any": np.any(list(pairs.values()), axis=0)} if len(pairs) > 1 else pairs
