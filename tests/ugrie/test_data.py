"""Labels become distributions whose expectation is the rating; what a table lacks is named."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ugrie.data import DataError, Labelled, load, over_levels, rescale, target
from ugrie.recipe import Column, DataSet
from ugrie.schemes import load_scheme

POLARITY, EKMAN, VALENCE = (load_scheme(name) for name in ("polarity2", "ekman6", "valence"))
SENTIMENT = load_scheme("polarity3")
LEVELS = tuple(map(float, range(1, 10)))


@given(value=st.floats(1, 9))
def test_a_rating_is_on_the_levels_beside_it_and_is_their_expectation(value):
    shares = over_levels(value, LEVELS)
    assert shares.sum() == pytest.approx(1, abs=1e-6)
    assert (shares >= 0).all()
    assert shares @ np.array(LEVELS) == pytest.approx(value, abs=1e-5)
    assert all(abs(level - value) < 1 for level, share in zip(LEVELS, shares, strict=True) if share > 0)


def test_levels_need_not_be_even():
    assert over_levels(4, (0, 1, 5)).tolist() == [0, 0.25, 0.75]


@given(value=st.floats(1, 7))
def test_a_rating_on_another_scale_keeps_its_place(value):
    assert (rescale(value, (1, 7), (1, 9)) - 1) / 8 == pytest.approx((value - 1) / 6)


def test_a_rating_outside_its_scale_is_refused():
    with pytest.raises(DataError, match=r"a rating of 7.5 is outside its scale \[1, 7\]"):
        rescale(7.5, (1, 7), (1, 9))


def test_names_synonyms_and_any_case_are_labels():
    shares = target(EKMAN, Column(), np.array(["joy", "Happy", "FEAR"]))
    assert shares.argmax(1).tolist() == [3, 3, 2]
    assert shares.sum(1).tolist() == [1, 1, 1]
    assert shares.dtype == np.float32


def test_empty_left_out_and_missing_values_are_no_label():
    shares = target(SENTIMENT, Column(leave_out=("mixed",)), np.array(["positive", "", "mixed"]))
    assert shares.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert not target(VALENCE, Column(), np.array([np.nan], np.float32)).any()


def test_cuts_make_classes_of_numbers():
    shares = target(SENTIMENT, Column(cuts=(3.5, 4.5)), np.array(["1", "3.49", "3.5", "4", "4.5", "7", ""]))
    assert shares.argmax(1).tolist() == [0, 0, 1, 1, 2, 2, 0]
    assert not shares[-1].any()


def test_ratings_are_read_on_their_own_scale():
    shares = target(VALENCE, Column(range=(1, 7)), np.array(["1", "4", "7", "2.5"]))
    np.testing.assert_allclose(shares @ np.array(VALENCE.values), [1, 5, 9, 3])
    np.testing.assert_allclose(target(VALENCE, Column(), np.array([5.5])) @ np.array(VALENCE.values), [5.5])


# Data sets


@pytest.fixture
def photos(tmp_path):
    """Writes photos/labels.csv and gives the folder above."""

    def write(text):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / "labels.csv").write_text(text)
        return tmp_path

    return write


def lengths(files) -> np.ndarray:
    """An embedding that tells files apart: the length of their name."""
    return np.array([[len(file.name), 1] for file in files], np.float32)


TABLE = "image,theme,valence,mood\na.jpg,sea,1,bad\nbb.jpg,sea,7,positive\nccc.jpg,fire,4,\n"


def data_set(**more) -> DataSet:
    return DataSet(**{"path": "photos", "schemes": {"valence": Column(range=(1, 7)), "polarity2": Column(column="mood")}} | more)


def test_a_table_of_labels_is_read_in_its_order(photos):
    seen = []

    def embed(files):
        seen.extend(files)
        return lengths(files)

    root = photos(TABLE)
    data = load(data_set(group="theme", repeat=2), root, [POLARITY, VALENCE], embed)
    assert seen == [root / "photos" / "images" / name for name in ("a.jpg", "bb.jpg", "ccc.jpg")]
    assert data.embeddings[:, 0].tolist() == [5, 6, 7]
    assert data.targets["polarity2"].tolist() == [[1, 0], [0, 1], [0, 0]]
    np.testing.assert_allclose(data.targets["valence"] @ np.array(VALENCE.values), [1, 9, 5])
    assert data.groups.tolist() == ["photos:sea", "photos:sea", "photos:fire"]
    assert data.repeats.tolist() == [2, 2, 2]


def test_without_groups_every_image_is_one(photos):
    assert len(set(load(data_set(), photos(TABLE), [POLARITY, VALENCE], lengths).groups)) == 3


def test_an_npz_brings_its_embeddings(tmp_path):
    half = np.arange(6, dtype=np.float16).reshape(3, 2)
    np.savez(tmp_path / "mine.npz", embedding=half, ekman6=np.array(["joy", "fear", "sad"]), valence=np.array([1.0, 9.0, np.nan]))
    data = load(
        DataSet(path="mine.npz", schemes={"ekman6": Column(), "valence": Column()}),
        tmp_path,
        [EKMAN, VALENCE],
        lambda files: pytest.fail("an .npz needs no tower"),
    )
    assert data.embeddings.dtype == np.float32
    np.testing.assert_array_equal(data.embeddings, half)
    assert data.targets["ekman6"].argmax(1).tolist() == [3, 2, 4]
    assert data.targets["valence"].any(1).tolist() == [True, True, False]


def test_an_npz_is_not_executed(tmp_path):
    np.savez(tmp_path / "mine.npz", embedding=np.array([{"a": 1}], dtype=object), ekman6=np.array(["joy"]))
    with pytest.raises(ValueError, match="allow_pickle"):
        load(DataSet(path="mine.npz", schemes={"ekman6": Column()}), tmp_path, [EKMAN], lengths)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"schemes": {"valence": Column(column="valense")}},
            r"labels.csv has no column 'valense' \(did you mean 'valence'\?\); it has image, theme",
        ),
        ({"file": "file"}, "labels.csv has no column 'file'"),
        ({"group": "category"}, "labels.csv has no column 'category'"),
        ({"schemes": {"valense": Column()}}, r"'valense' is none of the recipe's schemes \(did you mean 'valence'\?\)"),
        ({"labels": "other.csv"}, "there are no labels at .*other.csv"),
        (
            {"schemes": {"valence": Column(range=(1, 5))}},
            r"labels.csv, column 'valence': a rating of 7.0 is outside its scale \[1.0, 5.0\]",
        ),
        ({"schemes": {"valence": Column(column="mood")}}, "labels.csv, column 'mood': .*'bad'"),
        ({"schemes": {"polarity2": Column(column="theme")}}, "labels.csv, column 'theme': row 0: 'sea' is no label of polarity2"),
        ({"schemes": {"polarity2": Column(column="valence", cuts=(3, 5))}}, "labels.csv, column 'valence': .*2 cuts.* 2 labels"),
    ],
)
def test_what_a_table_lacks_or_does_not_mean_is_named(photos, changes, message):
    with pytest.raises(DataError, match=message):
        load(data_set(**changes), photos(TABLE), [POLARITY, VALENCE], lengths)


def test_data_sets_with_different_labels_are_put_together():
    a = Labelled(np.zeros((2, 3), np.float32), {"polarity2": np.eye(2, dtype=np.float32)}, np.array(["a:0", "a:1"]), np.array([1, 1]))
    b = Labelled(np.ones((1, 3), np.float32), {"valence": np.eye(9, dtype=np.float32)[:1]}, np.array(["b:0"]), np.array([3]))
    both = Labelled.concat([a, b], [POLARITY, VALENCE])
    assert len(both) == 3
    assert both.targets["polarity2"].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert both.targets["valence"].any(1).tolist() == [False, False, True]
    assert (both.groups.tolist(), both.repeats.tolist()) == (["a:0", "a:1", "b:0"], [1, 1, 3])


def test_taking_rows_takes_all_of_them():
    data = Labelled(np.arange(6).reshape(3, 2), {"polarity2": np.arange(6).reshape(3, 2)}, np.array(["a", "b", "c"]), np.array([1, 2, 3]))
    some = data.take(np.array([2, 0]))
    assert some.embeddings.tolist() == some.targets["polarity2"].tolist() == [[4, 5], [0, 1]]
    assert (some.groups.tolist(), some.repeats.tolist()) == (["c", "a"], [3, 1])


def test_the_shared_ratings_are_read_as_they_stand(shared):
    oasis = DataSet(path="oasis", group="theme", schemes={"valence": Column(range=(1, 7))})
    data = load(oasis, shared, [VALENCE], lengths)
    assert len(data) > 500
    assert len(set(data.groups)) < len(data)
    assert data.targets["valence"].any(1).all()
