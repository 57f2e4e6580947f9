"""Schemes whose labels never contradict each other in the data, and what the slots know of it (test_slots.py has the rule)."""

import numpy as np
import pytest

from ugrie.model.consistency import consistent_groups, signs, slot_signs
from ugrie.schemes.scheme import load_scheme

POLARITY2, POLARITY3, MIKELS, EKMAN, AROUSAL = SCHEMES = [
    load_scheme(name) for name in ("polarity2", "polarity3", "mikels8", "ekman6", "arousal")
]
GROUP = ("polarity2", "polarity3", "mikels8")


def test_the_signs_of_a_slot_are_its_labels_polarity_in_its_own_group():
    found = slot_signs([AROUSAL, POLARITY2, EKMAN], [("polarity2", "polarity3"), ("ekman6", "mikels8")])
    assert [each.dtype for each in found] == [np.float32] * 3
    assert found[0].tolist() == [[0] * len(AROUSAL.labels)] * 2
    assert found[1].tolist() == [signs(POLARITY2).tolist(), [0, 0]]
    assert found[2].tolist() == [[0] * len(EKMAN.labels), signs(EKMAN).tolist()]
    assert {1, -1} <= set(signs(EKMAN).tolist())


def test_without_groups_there_are_no_signs():
    assert [each.shape for each in slot_signs(SCHEMES, ())] == [(0, len(scheme.labels)) for scheme in SCHEMES]


def labelled(rows: int, *pairs: tuple[str, str, bool]) -> dict[str, np.ndarray]:
    """Return targets where `rows` images for each pair have labels of both schemes, which contradict each other or not."""
    by_name = {scheme.name: scheme for scheme in SCHEMES}
    targets = {name: np.zeros((rows * len(pairs), len(scheme.labels)), np.float32) for name, scheme in by_name.items()}
    for i, (first, second, contradict) in enumerate(pairs):
        block = slice(i * rows, (i + 1) * rows)
        targets[first][block, int(signs(by_name[first]).argmax())] = 1
        side = signs(by_name[second])
        targets[second][block, int(side.argmin() if contradict else side.argmax())] = 1
    return targets


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("polarity2", "polarity3", False)], (("polarity2", "polarity3"),)),
        ([("polarity2", "polarity3", False), ("polarity2", "mikels8", False)], (GROUP,)),  # also through polarity2
        ([("polarity2", "polarity3", False), ("polarity2", "ekman6", True)], (("polarity2", "polarity3"),)),
        ([("polarity2", "mikels8", True)], ()),
        (
            [("polarity2", "polarity3", False), ("polarity2", "mikels8", False), ("polarity3", "mikels8", True)],
            (("polarity2", "polarity3"),),
        ),
    ],
)
def test_groups_are_those_whose_labels_never_contradict_in_the_data(pairs, expected):
    assert consistent_groups(SCHEMES, labelled(60, *pairs)) == expected


def test_few_images_with_both_labels_tell_nothing():
    assert consistent_groups(SCHEMES, labelled(49, ("polarity2", "polarity3", False))) == ()
    assert consistent_groups(SCHEMES, labelled(50, ("polarity2", "polarity3", False))) == (("polarity2", "polarity3"),)
