"""The choice of images: its parts, its reasons, and what it is not biased by."""

import numpy as np
import pytest

from pipeline.review.choose import choose, farthest, representative
from pipeline.review.pools import Candidates, Row, any_contradiction, uncertainty
from pipeline.table.schema import SchemeMetadata

SCHEMES = {
    "mood": SchemeMetadata("categorical", ["good", "so-so", "bad"], ["positive", "neutral", "negative"]),
    "joy": SchemeMetadata("categorical", ["joy", "grief"], ["positive", "negative"]),
    "level": SchemeMetadata("ordinal", ["low", "mid", "high"], values=[1, 2, 3]),
}


def candidates(count, seed=0, population=None):
    rng = np.random.default_rng(seed)
    probs = {name: rng.dirichlet(np.ones(len(scheme.labels)), count) for name, scheme in SCHEMES.items()}
    choices = {name: p.argmax(1) for name, p in probs.items()}
    features = rng.normal(size=(count, 6)).astype(np.float32)
    return Candidates(
        [Row(f"{i}", f"{i:064x}", 0, i) for i in range(count)],
        probs,
        choices,
        np.mean(list(uncertainty(SCHEMES, probs).values()), axis=0),
        any_contradiction(SCHEMES, choices, count),
        features / np.linalg.norm(features, axis=1, keepdims=True),
        rng.permutation(count),
        population or count,
        population is None,
    )


def test_a_choice_has_its_parts_and_no_image_twice():
    pool = candidates(300)
    picks = choose(pool, SCHEMES, 40, 0.25, np.ones(300, bool))
    counts = {part: sum(pick.part == part for pick in picks) for part in ("random", "contradicting", "unsure", "representative")}
    assert counts == {"random": 10, "contradicting": 4, "unsure": 4, "representative": 22}
    assert len({pick.row for pick in picks}) == 40
    random = [pick.row for pick in picks if pick.part == "random"]
    assert sorted(pool.random[random]) == list(range(10))
    assert all(pool.contradictions[pick.row] for pick in picks if pick.part == "contradicting")
    lowest = min(pool.unsure[pick.row] for pick in picks if pick.part == "unsure")
    assert lowest > np.quantile(pool.unsure, 0.9)


def test_only_random_images_have_an_inclusion_probability():
    picks = choose(candidates(300, population=5000), SCHEMES, 40, 0.25, np.ones(300, bool))
    assert {(pick.part, pick.probability) for pick in picks if pick.probability} == {("random", 10 / 5000)}


def test_each_pick_says_why():
    why = {pick.part: pick.why[0] for pick in choose(candidates(300), SCHEMES, 40, 0.25, np.ones(300, bool))}
    assert why["random"] == "drawn at random"
    assert why["contradicting"].startswith("labels contradict each other: mood ")
    assert why["unsure"].startswith("the model is unsure of ")
    assert why["representative"] == "many images of the corpus are like it"


def test_images_that_can_t_be_shown_are_not_chosen_and_others_take_their_places():
    usable = np.random.default_rng(1).random(200) > 0.5
    picks = choose(candidates(200), SCHEMES, 50, 0.2, usable)
    assert len(picks) == 50
    assert all(usable[pick.row] for pick in picks)


def test_a_corpus_smaller_than_the_review_is_chosen_whole_and_is_its_own_sample():
    picks = choose(candidates(7), SCHEMES, 40, 0.25, np.ones(7, bool))
    assert {(pick.part, pick.probability) for pick in picks} == {("random", 1.0)}
    assert len(picks) == 7


def test_where_no_labels_contradict_each_other_the_other_parts_are_larger():
    pool = candidates(300)
    pool.contradictions[:] = False
    assert len(choose(pool, SCHEMES, 40, 0.25, np.ones(300, bool))) == 40


def test_representative_images_are_of_every_cluster_and_not_those_that_are_known():
    centres = np.eye(5, 8, dtype=np.float32) * 4
    features = np.concatenate([centres[i] + np.random.default_rng(i).normal(0, 0.1, (30, 8)) for i in range(5)]).astype(np.float32)
    assert {row // 30 for row in representative(features, 5, 0).tolist()} == set(range(5))
    assert {row // 30 for row in representative(features, 4, 1).tolist()} == {1, 2, 3, 4}  # the first row is of cluster 0


def test_representative_images_lower_the_variance_of_a_kernel_regression_most():
    features = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    squared = ((features[:, None] - features) ** 2).sum(2)
    kernel = np.exp(-squared / np.median(squared))

    def variance(rows):
        part = kernel[:, rows]
        return np.trace(kernel - part @ np.linalg.solve(kernel[np.ix_(rows, rows)] + np.eye(len(rows)), part.T))

    (best,) = representative(features, 1, 0).tolist()
    assert variance([best]) == pytest.approx(min(variance([row]) for row in range(60)), rel=1e-4)


def test_farthest_images_differ():
    features = np.array([[0, 0], [0, 0.1], [5, 0], [0, 5], [5, 0.1]], np.float32)
    assert set(farthest(features, 3).tolist()) == {0, 3, 4}
    assert farthest(features, 9).tolist() != []
    assert len(farthest(features[:0], 3)) == 0
