"""Labels of schemes that never contradict each other in the data don't contradict those before them in the sentence."""

import numpy as np
import pytest

from ugrie.model.consistency import choose, consistent_groups, signs
from ugrie.schemes.scheme import load_scheme

POLARITY2, POLARITY3, MIKELS, EKMAN, AROUSAL = SCHEMES = [
    load_scheme(name) for name in ("polarity2", "polarity3", "mikels8", "ekman6", "arousal")
]
GROUP = ("polarity2", "polarity3", "mikels8")


def random_probs(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {scheme.name: rng.dirichlet(np.ones(len(scheme.labels)), count).astype(np.float32) for scheme in SCHEMES}


def contradicts(labels: dict[str, int]) -> bool:
    found = {int(signs(scheme)[labels[scheme.name]]) for scheme in SCHEMES if scheme.name in labels}
    return {1, -1} <= found


def test_a_label_is_the_most_likely_that_does_not_contradict_those_before():
    """As trying the labels one by one finds."""
    probs = random_probs(300, 0)
    for order in (SCHEMES, SCHEMES[::-1]):
        chosen = choose(order, [GROUP], probs)
        for image in range(300):
            before: dict[str, int] = {}
            for scheme in order:
                if scheme.name in GROUP:
                    likely = np.argsort(-probs[scheme.name][image], kind="stable")
                    before[scheme.name] = next(int(i) for i in likely if not contradicts(before | {scheme.name: int(i)}))
            assert {name: int(chosen[name][image]) for name in GROUP} == before


def test_the_first_schemes_labels_are_its_most_likely():
    probs = random_probs(50, 3)
    assert (choose(SCHEMES, [GROUP], probs)["polarity2"] == probs["polarity2"].argmax(1)).all()
    assert (choose([MIKELS, POLARITY2], [GROUP], probs)["mikels8"] == probs["mikels8"].argmax(1)).all()


def test_labels_that_agree_anyway_are_each_schemes_most_likely():
    probs = random_probs(300, 1)
    chosen = choose(SCHEMES, [GROUP], probs)
    alone = {name: each.argmax(1) for name, each in probs.items()}
    agree = [not contradicts({name: int(alone[name][image]) for name in GROUP}) for image in range(300)]
    assert 20 < sum(agree) < 280
    for name in GROUP:
        assert (chosen[name] == alone[name])[agree].all()


def test_schemes_outside_the_group_and_single_members_are_left_alone():
    probs = random_probs(50, 2)
    chosen = choose(SCHEMES, [GROUP], probs)
    for name in ("ekman6", "arousal"):
        assert (chosen[name] == probs[name].argmax(1)).all()
    assert (choose([MIKELS, EKMAN], [GROUP], probs)["mikels8"] == probs["mikels8"].argmax(1)).all()
    assert (choose(SCHEMES, [], probs)["mikels8"] == probs["mikels8"].argmax(1)).all()


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
