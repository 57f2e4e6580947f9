"""Labels of one image that contradict each other: one is of positive, the other of negative polarity."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np


def contradicting(polarities: Mapping[str, Sequence[str | None]], choices: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which of n images have labels that contradict each other, bool [n]: by pair of schemes that have labels of both polarities.

    Where there are several pairs, also the images with any. `polarities` are those of each scheme's labels in order, `choices`, int
    [n], the labels written.
    """
    sides = {}
    for scheme, given in polarities.items():
        side = np.array([{"positive": 1, "negative": -1}.get(polarity or "", 0) for polarity in given])
        if {1, -1} <= set(side.tolist()):
            sides[scheme] = side[choices[scheme]]
    pairs = {f"{a} and {b}": sides[a] * sides[b] < 0 for a, b in combinations(sides, 2)}
    return pairs | {"any": np.any(list(pairs.values()), axis=0)} if len(pairs) > 1 else pairs
