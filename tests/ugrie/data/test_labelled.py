"""Labelled images: a data set's rows, its targets, groups and repeats; errors name the file, the column and the value."""

import numpy as np
import pytest

from ugrie.data.format import Column, DataSet
from ugrie.data.labelled import Labelled, load_all, read
from ugrie.data.table import DataError
from ugrie.schemes.scheme import load_scheme

POLARITY, EKMAN, MIKELS, VALENCE = (load_scheme(name) for name in ("polarity2", "ekman6", "mikels8", "valence"))


def load(data_set, root, schemes, embed):
    """Read one data set and embed it."""
    return read(data_set, root, schemes).embed(embed)


@pytest.fixture
def photos(tmp_path):
    """Write photos/labels.csv and empty files for its images; return the folder above."""

    def write(text):
        (tmp_path / "photos" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / "labels.csv").write_text(text)
        for line in text.splitlines()[1:]:
            (tmp_path / "photos" / "images" / line.split(",")[0]).touch()
        return tmp_path

    return write


def lengths(files) -> np.ndarray:
    """Embed files recognisably: by the length of their names."""
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
        ({"schemes": {"valense": Column()}}, r"'valense' is not a scheme of the recipe \(did you mean 'valence'\?\)"),
        ({"labels": "other.csv"}, "there are no labels at .*other.csv"),
        (
            {"schemes": {"valence": Column(range=(1, 5))}},
            r"labels.csv, column 'valence': a rating of 7.0 is outside its scale \[1.0, 5.0\]",
        ),
        ({"schemes": {"valence": Column(column="mood")}}, "labels.csv, column 'mood': .*'bad'"),
        ({"schemes": {"polarity2": Column(column="theme")}}, "labels.csv, column 'theme': 'fire' is not a label of polarity2"),
        ({"schemes": {"polarity2": Column(column="valence", cuts=(3, 5))}}, "labels.csv, column 'valence': .*2 cuts.* 2 labels"),
    ],
)
def test_what_a_table_lacks_or_does_not_mean_is_named(photos, changes, message):
    with pytest.raises(DataError, match=message):
        load(data_set(**changes), photos(TABLE), [POLARITY, VALENCE], lengths)


def nothing(files):
    pytest.fail("an image was embedded")


def test_images_without_a_label_are_kept_for_what_they_look_like(photos, caplog):
    caplog.set_level("INFO", logger="ugrie.data.labelled")
    data = load(data_set(schemes={"polarity2": Column(column="mood")}), photos(TABLE), [POLARITY], lengths)
    assert data.embeddings[:, 0].tolist() == [5, 6, 7]
    assert data.targets["polarity2"].any(1).tolist() == [True, True, False]
    assert "1 of 3 images have no label: they only help to fit the mapper's projection" in caplog.text


def test_images_of_a_rare_label_are_seen_more_often(photos):
    table = "image,mood\n" + "".join(f"{i}.jpg,{mood}\n" for i, mood in enumerate(["good"] * 5 + ["bad"] * 2 + [""]))
    mood = {"polarity2": Column(column="mood", codes={"good": "positive", "bad": "negative"})}
    data = load(data_set(schemes=mood, balance="polarity2", repeat=3), photos(table), [POLARITY], lengths)
    assert data.repeats.tolist() == [3] * 5 + [6] * 2 + [3], "five to two is two and a half, rounded to two"


@pytest.mark.parametrize("name", ["polarity3", "valence"])
def test_only_a_scheme_of_classes_that_it_states_can_be_balanced(photos, name):
    with pytest.raises(DataError, match=rf"photos: balance: '{name}' is not a categorical scheme of this data set"):
        read(data_set(balance=name), photos(TABLE), [POLARITY, VALENCE])


def test_a_scheme_to_balance_that_is_misspelt_is_guessed(photos):
    with pytest.raises(DataError, match=r"did you mean 'polarity2'\?"):
        read(data_set(balance="polarty2"), photos(TABLE), [POLARITY, VALENCE])


def test_a_data_set_without_one_label_is_refused(photos):
    leave_out = data_set(schemes={"polarity2": Column(column="mood", leave_out=("bad", "positive"))})
    with pytest.raises(DataError, match=r"labels.csv: none of the 3 images has a label"):
        read(leave_out, photos(TABLE), [POLARITY])


def test_images_that_cannot_be_decoded_are_left_out_and_named(photos, caplog):
    def embed(files):
        out = lengths(files)
        out[[0, 2]] = np.nan
        return out

    data = load(data_set(), photos(TABLE), [POLARITY, VALENCE], embed)
    assert data.embeddings.tolist() == [[6, 1]]
    assert data.groups.tolist() == ["photos:bb.jpg"]
    assert data.targets["polarity2"].tolist() == [[0, 1]]
    assert "labels.csv: 2 of 3 images can't be decoded and are left out: 'a.jpg', 'ccc.jpg'" in caplog.text
    with pytest.raises(DataError, match=r"none of the 3 images can be decoded: 'a.jpg', 'bb.jpg', 'ccc.jpg'"):
        load(data_set(), photos(TABLE), [POLARITY, VALENCE], lambda files: lengths(files) * np.nan)


def test_votes_of_a_table_are_a_distribution(photos):
    root = photos("image,sad_votes,joy_votes\na.jpg,1,3\nb.jpg,0,0\nc.jpg,2,0\n")
    votes = Column(distribution={"sadness": "sad_votes", "joy": "joy_votes"})
    data = load(data_set(schemes={"ekman6": votes}), root, [EKMAN], lengths)
    assert data.targets["ekman6"][:, [3, 4]].tolist() == [[0.75, 0.25], [0, 0], [0, 1]]
    wrong = data_set(schemes={"ekman6": Column(distribution={"sadnes": "sad_votes"})})
    with pytest.raises(
        DataError, match=r"labels.csv, distribution of 'ekman6': 'sadnes' is not a label of ekman6 \(did you mean 'sadness'"
    ):
        read(wrong, root, [EKMAN])


def crosswalked(**more) -> Column:
    return Column.model_validate({"from": "mikels8"} | more)


@pytest.mark.parametrize(
    "schemes",
    [
        {"polarity2": crosswalked(column="feeling")},
        {"mikels8": Column(column="feeling"), "polarity2": crosswalked()},
    ],
)
def test_a_crosswalk_leads_from_what_the_table_speaks(photos, schemes):
    root = photos("image,feeling\na.jpg,awe\nb.jpg,fear\nc.jpg,amused\n")
    data = load(data_set(schemes=schemes), root, [POLARITY, MIKELS], lengths)
    np.testing.assert_array_equal(data.targets["polarity2"], [[0, 1], [1, 0], [0, 1]])


def test_a_crosswalk_is_of_a_distribution_as_well_and_what_it_loses_is_shared_out(photos):
    root = photos("image,j,s,x\na.jpg,1,3,4\nb.jpg,0,0,1\nc.jpg,1,0,0\n")
    stated = {
        "ekman6": Column(distribution={"joy": "j", "sadness": "s", "surprise": "x"}),
        "polarity2": Column.model_validate({"from": "ekman6"}),
    }
    data = load(data_set(schemes=stated), root, [EKMAN, POLARITY], lengths)
    np.testing.assert_allclose(data.targets["polarity2"], [[0.75, 0.25], [0, 0], [0, 1]])


@pytest.mark.parametrize(
    ("scheme", "spoken", "message"),
    [
        (VALENCE, "mikels8", "labels.csv, scheme 'valence': mikels8 has no crosswalk to valence"),
        (POLARITY, "mikel8", r"labels.csv, scheme 'polarity2': no scheme is named 'mikel8' \(did you mean 'mikels8'\?\)"),
        (POLARITY, "mikels8", r"labels.csv, column 'feeling': 'aww' is not a label of mikels8 \(did you mean 'awe'\?\)"),
    ],
)
def test_a_crosswalk_that_leads_nowhere_is_named(photos, scheme, spoken, message):
    root = photos("image,feeling\na.jpg,aww\n")
    with pytest.raises(DataError, match=message):
        read(data_set(schemes={scheme.name: Column.model_validate({"column": "feeling", "from": spoken})}), root, [scheme])


def test_what_is_wrong_with_the_last_data_set_is_said_before_an_image_is_embedded(photos):
    good, bad = data_set(), data_set(schemes={"polarity2": Column(column="theme")})
    with pytest.raises(DataError, match="'fire' is not a label of polarity2"):
        load_all([good, bad], photos(TABLE), [POLARITY, VALENCE], nothing, 2)


def test_data_sets_of_a_recipe_are_loaded_together(photos):
    data = load_all(
        [data_set(), data_set(schemes={"valence": Column(column="valence")}, repeat=2)], photos(TABLE), [POLARITY, VALENCE], lengths, 2
    )
    assert len(data) == 6
    assert data.targets["polarity2"].any(1).tolist() == [True, True, False, False, False, False]
    assert data.repeats.tolist() == [1, 1, 1, 2, 2, 2]
    assert data.groups[:3].tolist() == data.groups[3:].tolist()


def test_embeddings_of_another_tower_are_refused_before_an_image_is_embedded(photos, tmp_path):
    root = photos(TABLE)
    np.savez(tmp_path / "b.npz", embedding=np.zeros((1, 3), np.float16), ekman6=np.array(["joy"]))
    given = [data_set(), DataSet(path="b.npz", schemes={"ekman6": Column()})]
    with pytest.raises(DataError, match=r"b.npz: embeddings of 3 dimensions; the recipe's tower has 2"):
        load_all(given, root, [EKMAN, POLARITY, VALENCE], nothing, 2)


def test_data_sets_with_different_labels_are_put_together():
    a = Labelled(
        np.zeros((2, 3), np.float32),
        {"polarity2": np.eye(2, dtype=np.float32)},
        np.array(["a:0", "a:1"]),
        np.array([1, 1]),
        np.array(["a", "a"]),
    )
    b = Labelled(
        np.ones((1, 3), np.float32), {"valence": np.eye(9, dtype=np.float32)[:1]}, np.array(["b:0"]), np.array([3]), np.array(["b"])
    )
    both = Labelled.concat([a, b], [POLARITY, VALENCE])
    assert len(both) == 3
    assert both.targets["polarity2"].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert both.targets["valence"].any(1).tolist() == [False, False, True]
    assert (both.groups.tolist(), both.repeats.tolist()) == (["a:0", "a:1", "b:0"], [1, 1, 3])
    assert both.sets.tolist() == ["a", "a", "b"]


def test_taking_rows_takes_all_of_them():
    data = Labelled(
        np.arange(6).reshape(3, 2),
        {"polarity2": np.arange(6).reshape(3, 2)},
        np.array(["a", "b", "c"]),
        np.array([1, 2, 3]),
        np.array(["x", "y", "z"]),
    )
    some = data.take(np.array([2, 0]))
    assert some.embeddings.tolist() == some.targets["polarity2"].tolist() == [[4, 5], [0, 1]]
    assert (some.groups.tolist(), some.repeats.tolist()) == (["c", "a"], [3, 1])
    assert some.sets.tolist() == ["z", "x"]


def test_the_shared_ratings_are_read_as_they_stand(shared):
    oasis = DataSet(path="oasis", group="theme", schemes={"valence": Column(range=(1, 7))})
    data = load(oasis, shared, [VALENCE], lengths)
    assert len(data) > 500
    assert len(set(data.groups)) < len(data)
    assert data.targets["valence"].any(1).all()
