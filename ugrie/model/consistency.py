"""Labels that do not contradict each other, in schemes whose labels never do in the training data.

Each scheme's most likely label may contradict another's: joy where the mood is negative. For such schemes a label is the most likely one
that does not contradict the labels before it in the sentence. `ugrie/model/slots.py` applies the rule as it fills slot after slot, so that
what it reads for a later slot is the sentence as it stands.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from ugrie.schemes.scheme import Scheme

FEW = 50  # images with a label in both of two schemes; fewer don't tell that the two never contradict each other
SIGNS = {"positive": 1, "negative": -1}


def signs(scheme: Scheme) -> np.ndarray:
    """Return 1 for each label of positive polarity, -1 for one of negative, else 0: int [labels]."""
    return np.array([SIGNS.get(label.polarity or "", 0) for label in scheme.labels])


def consistent_groups(schemes: Sequence[Scheme], targets: Mapping[str, np.ndarray]) -> tuple[tuple[str, ...], ...]:
    """Return groups of schemes whose labels never contradict each other: names, each in one group at most.

    `targets` by scheme are [images, labels] (a row of zeros: no label). Two schemes are joined, directly or through others, if at least 50
    images have labels of both and no label contradicts another; and never if any does.
    """
    polar = [scheme.name for scheme in schemes if {1, -1} <= set(signs(scheme).tolist())]
    sign = {s.name: np.where(targets[s.name].any(1), signs(s)[targets[s.name].argmax(1)], 0) for s in schemes if s.name in polar}
    labelled = {name: targets[name].any(1) for name in polar}
    contradict = {pair for pair in combinations(polar, 2) if (sign[pair[0]] * sign[pair[1]] < 0).any()}
    groups = [{name} for name in polar]
    for first, second in combinations(polar, 2):
        a, b = (next(group for group in groups if name in group) for name in (first, second))
        together = np.count_nonzero(labelled[first] & labelled[second])
        if a is not b and together >= FEW and not any(set(pair) <= a | b for pair in contradict):
            groups = [group for group in groups if group not in (a, b)] + [a | b]
    return tuple(tuple(name for name in polar if name in group) for group in groups if len(group) > 1)


def slot_signs(schemes: Sequence[Scheme], groups: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """Return for each scheme the signs of its labels in each group, float32 [groups, labels]: zeros where it is not in the group.

    Choosing a group's labels together, as the most likely combination, was tried: a scheme that knows little of an image then overrules
    others that know more.
    """
    member = [np.array([[float(scheme.name in group)] for group in groups]).reshape(len(groups), 1) for scheme in schemes]
    return [(mine * signs(scheme)).astype(np.float32) for mine, scheme in zip(member, schemes, strict=True)]
