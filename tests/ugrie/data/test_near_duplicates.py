"""Groups that have the same image are joined, in one data set or in two; others stay apart."""

import numpy as np

from ugrie.data.near_duplicates import joined_groups

RNG = np.random.default_rng(0)


def photos(count: int) -> np.ndarray:
    """Return embeddings of different photos: in a narrow cone, as CLIP's are."""
    return (RNG.normal(size=(count, 64)) + 5).astype(np.float32)


def test_images_that_show_the_same_join_their_groups_under_the_first_name():
    embeddings = photos(40)
    embeddings[30] = embeddings[3] * 2 + 0.01 * RNG.normal(size=64)  # the same photo, compressed anew
    groups = np.char.add(np.repeat(["a:", "b:"], 20), np.char.zfill(np.arange(40).astype(str), 2))
    joined = joined_groups(embeddings, groups)
    assert joined[30] == joined[3] == "a:03"
    others = np.delete(np.arange(40), [30])
    assert joined[others].tolist() == groups[others].tolist()


def test_a_chain_of_groups_becomes_one():
    embeddings = photos(40)
    embeddings[10], embeddings[21] = embeddings[0], embeddings[20]
    groups = np.array(["theme"] * 2 + [f"x{i:02}" for i in range(2, 40)])
    groups[20] = groups[10]  # so theme has an image of x10, and x10 one of x21
    joined = joined_groups(embeddings, groups)
    assert set(joined[[0, 1, 10, 20, 21]]) == {"theme"}
    assert len(np.unique(joined)) == len(np.unique(groups)) - 2


def test_different_images_stay_apart_whatever_their_norm():
    embeddings = photos(200) * np.linspace(0.1, 10, 200, dtype=np.float32)[:, None]
    groups = np.arange(200).astype(str)
    assert joined_groups(embeddings, groups).tolist() == groups.tolist()


def test_too_few_images_to_tell_are_left_alone():
    embeddings = np.ones((3, 4), np.float32)
    groups = np.array(["a", "b", "c"])
    assert joined_groups(embeddings, groups).tolist() == ["a", "b", "c"]
