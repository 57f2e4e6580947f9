"""Every image is predicted by a model that was not trained on it, and an interrupted cross-validation resumes."""

from dataclasses import replace

import numpy as np
import pytest

from ugrie.data.labelled import DataError, Labelled
from ugrie.schemes.scheme import load_scheme
from ugrie.training import cross_validation
from ugrie.training.cross_validation import cross_validate

pytestmark = pytest.mark.slow

POLARITY, VALENCE = load_scheme("polarity2"), load_scheme("valence")


@pytest.fixture
def data(signal) -> Labelled:
    """Two data sets; one has no valence labels."""
    data = signal(240)
    data.targets["valence"][120:] = 0
    return replace(data, sets=np.where(np.arange(240) < 120, "here", "there"))


@pytest.fixture
def trainings(monkeypatch):
    """Records the training set of each model, and raises KeyboardInterrupt in the training after `limit`."""
    seen: list[Labelled] = []
    train = cross_validation.train

    def record(limit: int = 100):
        seen.clear()

        def recorded(model, data, *more):
            if len(seen) == limit:
                raise KeyboardInterrupt
            seen.append(data)
            return train(model, data, *more)

        monkeypatch.setattr(cross_validation, "train", recorded)
        return seen

    return record


def test_every_scheme_is_measured_on_every_data_set(toy, toy_tower, data):
    recipe = toy.model_copy(update={"epochs": 12})
    measured = cross_validate(recipe, [POLARITY, VALENCE], toy_tower, data, folds=2)
    assert set(measured) == {"polarity2 on here", "polarity2 on there", "valence on here"}
    assert all(measures["n"] == 120 for measures in measured.values())
    assert measured["polarity2 on here"]["accuracy"] > 0.75


def test_groups_are_held_out_whole_and_each_once(toy, toy_tower, data, trainings):
    groups = (np.arange(240) // 8).astype(str)
    seen = trainings()
    recipe = toy.model_copy(update={"epochs": 1})
    cross_validate(recipe, [POLARITY, VALENCE], toy_tower, replace(data, groups=groups), folds=3)
    held_out = [set(groups) - set(part.groups) for part in seen]
    assert [len(part) for part in held_out] == [10, 10, 10]
    assert set.union(*held_out) == set(groups)
    for part, out in zip(seen, held_out, strict=True):
        assert set(part.groups).isdisjoint(out)


def test_what_was_interrupted_goes_on_and_measures_the_same(toy, toy_tower, data, trainings, tmp_path):
    recipe = toy.model_copy(update={"epochs": 2, "dropout": 0.2})
    arguments = recipe, [POLARITY, VALENCE], toy_tower, data, 3
    expected = cross_validate(*arguments)
    trainings(2)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(*arguments, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fold-1-of-3.safetensors", "fold-2-of-3.safetensors"]
    seen = trainings()
    assert cross_validate(*arguments, tmp_path) == expected
    assert len(seen) == 1


@pytest.mark.parametrize("folds", [1, 6])
def test_there_must_be_a_group_for_each_fold(toy, toy_tower, signal, folds):
    with pytest.raises(DataError, match=f"5 groups of images can't be split into {folds} folds: ask for 2 or more"):
        cross_validate(toy, [POLARITY, VALENCE], toy_tower, signal(5), folds)
