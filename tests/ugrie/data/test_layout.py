"""The smallest faithful copy of each public data set is read with its layout alone."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ugrie.data.format import Column, DataSet
from ugrie.data.labelled import DataError, read
from ugrie.data.layout import bundled_layouts, load_layout, with_layout
from ugrie.schemes.scheme import load_scheme

DOCS = Path(__file__).parents[3] / "docs" / "datasets.md"


def emoset(folder):
    for split, rows in {"train": [("awe", 1), ("sadness", 2)], "val": [("fear", 3)], "test": [("anger", 4)]}.items():
        listed = [[e, f"{e}_{i:05}", f"image/{e}/{e}_{i:05}.jpg", f"annotation/{e}/{e}_{i:05}.json"] for e, i in rows]
        write(folder, {f"{split}.json": json.dumps(listed)} | {path: "{}" for row in listed for path in row[2:]})
    write(folder, {"info.json": "{}"})


EMOTION6 = (
    "[image_filename]\t[valence]\t[arousal]\t[prob. anger]\t[prob. disgust]\t[prob. fear]\t[prob. joy]\t"
    "[prob. sadness]\t[prob. surprise]\t[prob. neutral]\n"
    "disgust/1.jpg\t2.5\t3.8\t0.133333\t0.7\t0\t0.0666667\t0.1\t0\t0\njoy/1.jpg\t5\t5\t0\t0\t0\t0.5\t0\t0\t0.5\n"
)
ABSTRACT = "'','Amusement','Anger','Awe','Content','Disgust','Excitement','Fear','Sad'\n'abstract_0001.jpg',3,0,0,1,0,0,0,4\n"
OASIS = (
    ",Theme,Category,Source,Valence_mean,Valence_SD,Valence_N,Arousal_mean,Arousal_SD,Arousal_N\n"
    "I1,Acorns 1,Object,Pixabay,5.0,1.1,103,2.0,1.2,97\nI2,Acorns 2 ,Object,Pixabay,3.0,1.1,103,6.0,1.2,97\n"
    "I3,Ambulance 1,Object,Flickr,4.0,1.1,103,4.0,1.2,97\n"
)
MVSA = (
    "ID\ttext,image\n1\tneutral,positive\n2\tneutral,neutral\n3\tpositive,negative\n4\tnegative,neutral\n"
    "5\tpositive,positive\n6\tnegative,positive\n"
)

COPIES = {
    "abstract": {"ABSTRACT_groundTruth.csv": ABSTRACT, "abstract_0001.jpg": ""},
    "artphoto": {"amusement_0001.jpg": "", "sad_0002.jpg": "", "Thumbs.db": ""},
    "emoset": emoset,
    "emotion6": {"ground_truth.txt": EMOTION6, "readme.txt": "", "images/disgust/1.jpg": "", "images/joy/1.jpg": ""},
    "emotion-6": {"images/anger/digust/disgust/1.jpg": "", "images/anger/rage/rage/1.jpg": "", "images/surprise/surprise/shock/2.jpg": ""},
    "emotionroi": {
        "training_testing_split/training.txt": "anger/1.jpg\nsurprise/2.jpg\n",
        "training_testing_split/testing.txt": "joy/3.jpg\n",
        **{f"{kind}/{name}.jpg": "" for kind in ("images", "ground_truth") for name in ("anger/1", "surprise/2", "joy/3")},
    },
    "fi": {"amusement/1.jpg": "", "awe/2.jpg": "", "fear/3.jpg": ""},
    "iapsa": {"awe/1050.jpg": "", "disgust/3000.jpg": ""},
    "mvsa": {"labelResultAll.txt": MVSA, **{f"data/{i}.{ending}": "" for i in range(1, 7) for ending in ("jpg", "txt")}},
    "oasis": {"OASIS.csv": OASIS, "images/Acorns 1.jpg": "", "images/Acorns 2.jpg": "", "images/Ambulance 1.jpg": ""},
    "twitter1": {"three_agree.txt": "1.jpg 1\n2.jpg 0\n", "Agg_AMT_Candidates/1.jpg": "", "Agg_AMT_Candidates/2.jpg": ""},
    "twitter2": {"negative/1.jpg": "", "positive/2.jpg": ""},
    "unbiasedemo": {"images/love/dog/1.jpg": "", "images/fear/dog/1.jpg": "", "images/surprise/car/2.jpg": ""},
    "webemo": {"train/0/1.jpg": "", "train/9/2.jpg": "", "train/22/3.jpg": "", "test/1/4.jpg": "", "category.txt": "", "train25.txt": ""},
}

# By layout and scheme: each image's label, distribution or rating; None for no label.
EXPECTED = {
    "abstract": {
        "mikels8": {"abstract_0001.jpg": {"amusement": 0.375, "contentment": 0.125, "sadness": 0.5}},
        "polarity2": {"abstract_0001.jpg": {"positive": 0.5, "negative": 0.5}},
    },
    "artphoto": {
        "mikels8": {"amusement_0001.jpg": "amusement", "sad_0002.jpg": "sadness"},
        "polarity2": {"amusement_0001.jpg": "positive", "sad_0002.jpg": "negative"},
    },
    "emoset": {
        "mikels8": {"awe_00001.jpg": "awe", "sadness_00002.jpg": "sadness", "fear_00003.jpg": "fear"},
        "polarity2": {"awe_00001.jpg": "positive", "sadness_00002.jpg": "negative", "fear_00003.jpg": "negative"},
    },
    "emotion6": {
        "ekman6": {"disgust/1.jpg": "disgust", "joy/1.jpg": "joy"},
        "ekman7": {
            "disgust/1.jpg": {"anger": 0.133333, "disgust": 0.7, "joy": 0.0666667, "sadness": 0.1},
            "joy/1.jpg": {"joy": 0.5, "neutral": 0.5},
        },
        "valence": {"disgust/1.jpg": 2.5, "joy/1.jpg": 5},
        "arousal": {"disgust/1.jpg": 3.8, "joy/1.jpg": 5},
        "polarity2": {"disgust/1.jpg": "negative", "joy/1.jpg": "positive"},
    },
    "emotion-6": {
        "parrott6": {"disgust/1.jpg": "anger", "rage/1.jpg": "anger", "shock/2.jpg": "surprise"},
        "unbiasedemo6": {"disgust/1.jpg": "anger", "rage/1.jpg": "anger", "shock/2.jpg": "surprise"},
        "polarity2": {"disgust/1.jpg": "negative", "rage/1.jpg": "negative", "shock/2.jpg": None},
    },
    "emotionroi": {
        "ekman6": {"anger/1.jpg": "anger", "surprise/2.jpg": "surprise"},
        "polarity2": {"anger/1.jpg": "negative", "surprise/2.jpg": None},
    },
    "fi": {
        "mikels8": {"amusement/1.jpg": "amusement", "awe/2.jpg": "awe", "fear/3.jpg": "fear"},
        "polarity2": {"amusement/1.jpg": "positive", "awe/2.jpg": "positive", "fear/3.jpg": "negative"},
    },
    "iapsa": {
        "mikels8": {"awe/1050.jpg": "awe", "disgust/3000.jpg": "disgust"},
        "polarity2": {"awe/1050.jpg": "positive", "disgust/3000.jpg": "negative"},
    },
    "mvsa": {
        "polarity3": {"1.jpg": "positive", "2.jpg": "neutral", "4.jpg": "negative", "5.jpg": "positive"},
        "polarity2": {"1.jpg": "positive", "2.jpg": None, "4.jpg": "negative", "5.jpg": "positive"},
    },
    "oasis": {
        "valence": {"Acorns 1.jpg": 1 + 4 * 8 / 6, "Acorns 2.jpg": 1 + 2 * 8 / 6, "Ambulance 1.jpg": 5},
        "arousal": {"Acorns 1.jpg": 1 + 8 / 6, "Acorns 2.jpg": 1 + 5 * 8 / 6, "Ambulance 1.jpg": 5},
        "polarity2": {"Acorns 1.jpg": "positive", "Acorns 2.jpg": "negative", "Ambulance 1.jpg": "positive"},
        "polarity3": {"Acorns 1.jpg": "positive", "Acorns 2.jpg": "negative", "Ambulance 1.jpg": "neutral"},
    },
    "twitter1": {"polarity2": {"1.jpg": "positive", "2.jpg": "negative"}},
    "twitter2": {"polarity2": {"negative/1.jpg": "negative", "positive/2.jpg": "positive"}},
    "unbiasedemo": {
        "unbiasedemo6": {"fear/dog/1.jpg": "fear", "love/dog/1.jpg": "love", "car/2.jpg": "surprise"},
        "parrott6": {"fear/dog/1.jpg": "fear", "love/dog/1.jpg": "love", "car/2.jpg": "surprise"},
        "polarity2": {"fear/dog/1.jpg": "negative", "love/dog/1.jpg": "positive", "car/2.jpg": None},
    },
    "webemo": {
        "webemo25": {"0/1.jpg": "affection", "9/2.jpg": "gratitude", "22/3.jpg": "surprise"},
        "parrott6": {"0/1.jpg": "love", "9/2.jpg": "love", "22/3.jpg": "surprise"},
        "polarity2": {"0/1.jpg": "positive", "9/2.jpg": "positive", "22/3.jpg": "positive"},
    },
}


def write(folder, files) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def copy(tmp_path):
    """Write the copy of a data set; return the folder above it."""

    def make(layout):
        files = COPIES[layout]
        files(tmp_path / layout) if callable(files) else write(tmp_path / layout, files)
        return tmp_path

    return make


def shares(scheme, expected) -> list[float]:
    """Return an image's expected distribution."""
    if expected is None:
        return [0.0] * len(scheme.labels)
    if isinstance(expected, str):
        expected = {expected: 1}
    return [expected.get(name, 0.0) for name in scheme.label_names]


@pytest.mark.parametrize("layout", bundled_layouts())
def test_a_copy_of_a_public_data_set_is_read(copy, layout):
    root = copy(layout)
    schemes = [load_scheme(name) for name in EXPECTED[layout]]
    data = read(DataSet(path=layout, layout=layout), root, schemes)
    assert set(data.targets) == set(EXPECTED[layout])
    for scheme in schemes:
        expected = EXPECTED[layout][scheme.name]
        labelled = np.any([target.any(1) for target in data.targets.values()], 0)
        assert labelled.sum() == len(expected)
        for image, target in zip(np.array(data.table.images, object)[labelled], data.targets[scheme.name][labelled], strict=True):
            (value,) = (value for name, value in expected.items() if str(image).endswith(f"/{name}"))
            if scheme.kind == "ordinal":
                assert target @ np.array(scheme.values) == pytest.approx(value)
            else:
                np.testing.assert_allclose(target, shares(scheme, value), atol=1e-5)


@pytest.mark.parametrize("layout", bundled_layouts())
def test_a_layout_speaks_bundled_schemes_and_is_documented(layout):
    assert set(EXPECTED[layout]) == set(load_layout(layout).schemes)
    section = DOCS.read_text().partition(f'`layout = "{layout}"`')[2].partition("\n### ")[0]
    assert load_layout(layout).url in section
    for scheme in load_layout(layout).schemes:
        assert f"`{scheme}`" in section


def test_near_duplicates_of_oasis_stay_together(copy):
    data = read(DataSet(path="oasis", layout="oasis"), copy("oasis"), [load_scheme("valence")])
    assert data.groups.tolist() == ["oasis:Acorns", "oasis:Acorns", "oasis:Ambulance"]


def test_only_the_schemes_of_the_recipe_are_read(copy):
    root = copy("emotion6")
    assert set(read(DataSet(path="emotion6", layout="emotion6"), root, [load_scheme("arousal")]).targets) == {"arousal"}
    message = "emotion6: the layout 'emotion6' has ekman6, valence, arousal, polarity2, ekman7; the recipe trains none of these"
    with pytest.raises(DataError, match=message):
        read(DataSet(path="emotion6", layout="emotion6"), root, [load_scheme("mikels8")])


def test_what_a_recipe_says_itself_stands(copy):
    root = copy("emotion6")
    soft = Column(distribution={"joy": "joy", "disgust": "disgust", "anger": "anger"})
    given = DataSet(path="emotion6", layout="emotion6", schemes={"ekman6": soft}, repeat=3)
    ekman6 = load_scheme("ekman6")
    data = read(given, root, [ekman6, load_scheme("valence")])
    first = shares(ekman6, {"anger": 4 / 27, "disgust": 7 / 9, "joy": 2 / 27})
    np.testing.assert_allclose(data.targets["ekman6"], [first, shares(ekman6, "joy")], atol=1e-5)
    assert data.targets["valence"].any(1).all()
    assert data.repeats.tolist() == [3, 3]
    test = read(DataSet(path="emoset", layout="emoset", splits=("test",)), copy("emoset"), [load_scheme("mikels8")])
    assert [image.name for image in test.table.images] == ["anger_00004.jpg"]


def test_an_agreement_of_twitter_is_chosen_by_its_list(copy):
    root = copy("twitter1")
    (root / "twitter1" / "five_agree.txt").write_text("2.jpg 0\n")
    data = read(DataSet(path="twitter1", layout="twitter1", labels="five_agree.txt"), root, [load_scheme("polarity2")])
    assert data.table.names.tolist() == ["2.jpg"]


def test_what_was_said_of_the_image_alone_can_be_read_of_mvsa(copy):
    image_mood = {
        "derived": {"image_mood": {"column": "text,image", "pattern": ",(.+)$"}},
        "schemes": {"polarity3": {"column": "image_mood"}},
    }
    polarity3 = load_scheme("polarity3")
    data = read(DataSet.model_validate({"path": "mvsa", "layout": "mvsa"} | image_mood), copy("mvsa"), [polarity3])
    labels = [polarity3.label_names[label] for label in data.targets["polarity3"].argmax(1)]
    assert labels == ["positive", "neutral", "negative", "neutral", "positive", "positive"]


def test_a_data_set_without_a_layout_is_as_it_says():
    given = DataSet(path="photos", schemes={"valence": Column()})
    assert with_layout(given) is given


def test_an_unknown_layout_is_named_with_its_neighbour():
    with pytest.raises(DataError, match=r"there is no layout 'emo-set' \(did you mean 'emoset'\?\); the layouts are abstract, "):
        with_layout(DataSet(path="photos", layout="emo-set"))


# Copies as others made them


def draw(folder, *names) -> None:
    """Write tiny images."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(folder / name)


def labels(folder, layout, scheme, **own):
    """Return each image's label, by the image's name in the table."""
    stated = load_scheme(scheme)
    data = read(DataSet(path=folder.name, layout=layout, **own), folder.parent, [stated])
    return {name: stated.label_names[label] for name, label in zip(data.table.names.tolist(), data.targets[scheme].argmax(1), strict=True)}


def emoset_copy(folder, train, val):
    draw(folder, "image/awe/1.jpg", "image/fear/2.jpg")
    write(folder, {f"{split}.json": json.dumps(rows) for split, rows in {"train": train, "val": val, "test": val}.items()})
    return folder


AWE3, AWE4 = ["awe", "image/awe/1.jpg", "annotation/awe/1.json"], ["awe", "awe_1", "image/awe/1.jpg", "annotation/awe/1.json"]
FEAR3, FEAR4 = ["fear", "image/fear/2.jpg", "annotation/fear/2.json"], ["fear", "fear_2", "image/fear/2.jpg", "annotation/fear/2.json"]


@pytest.mark.parametrize(("awe", "fear"), [(AWE3, FEAR3), (AWE4, FEAR4)])
def test_rows_of_emoset_have_three_cells_or_four(tmp_path, awe, fear):
    folder = emoset_copy(tmp_path / "EmoSet-118K", [awe], [fear])
    assert labels(folder, "emoset", "mikels8") == {"image/awe/1.jpg": "awe", "image/fear/2.jpg": "fear"}


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (
            [AWE4[:2]],
            [],
            r"train\.json, row 1 has 2 cells for 4 columns: class, id, image, annotation \(3 without id\); all",
        ),
        (
            [[*AWE4, 7]],
            [],
            r"train\.json, row 1 has 5 cells for 4 columns: class, id, image, annotation \(3 without id\); all",
        ),
        (
            [AWE4, FEAR3],
            [],
            r"train\.json, row 2 has 3 cells for 4 columns: class, id, image, annotation \(3 without id\); all",
        ),
        ([AWE3, FEAR4], [], r"train\.json, row 2 has 4 cells for 3 columns: class, image, annotation; all must be alike$"),
        ([AWE4], [FEAR3], "the tables of train, val, test have different columns"),
        (
            [{"class": "awe", "image": "image/awe/1.jpg", "annotation": ""}],
            [],
            r"train\.json can't be read .* row 1 is not a list of cells",
        ),
        ({"awe": AWE4}, [], r"train\.json can't be read as a table: row 1 is not a list of cells"),
    ],
)
def test_other_rows_of_emoset_are_refused(tmp_path, train, val, message):
    folder = emoset_copy(tmp_path / "EmoSet-118K", train, val)
    with pytest.raises(DataError, match=message):
        labels(folder, "emoset", "mikels8")


def test_folders_of_webemo_may_be_named_as_its_lists(tmp_path):
    draw(tmp_path, "images/train25/1/a.jpg", "images/train25/11/b.jpg", "images/train25/24/c.jpg", "images/test25/2/d.jpg")
    draw(tmp_path, "images/test25/10/e.jpg")
    trained = {"train25/1/a.jpg": "cheerfulness", "train25/11/b.jpg": "irritability", "train25/24/c.jpg": "zest"}
    assert labels(tmp_path / "images", "webemo", "webemo25") == trained
    tested = {"test25/2/d.jpg": "confusion", "test25/10/e.jpg": "horror"}
    assert labels(tmp_path / "images", "webemo", "webemo25", splits=("test",)) == tested


@pytest.mark.parametrize("split", ["train", "train25"])
def test_labels_of_webemo_cut_to_one_digit_are_refused(tmp_path, split):
    draw(tmp_path, *(f"WEBEmo/{split}/{digit}/{digit}.jpg" for digit in range(10)), "WEBEmo/test/12/a.jpg")
    message = (
        "WEBEmo: the column 'class' has only the values 0, 1, 2, 3, 4, 5, 6, 7, 8, 9: WEBEmo has 25 labels, 0 to 24. This copy has none"
    )
    with pytest.raises(DataError, match=message):
        labels(tmp_path / "WEBEmo", "webemo", "webemo25")
    assert labels(tmp_path / "WEBEmo", "webemo", "webemo25", splits=("test",)) == {"test/12/a.jpg": "lust"}


def test_a_copy_of_webemo_without_splits_is_read_as_the_recipe_says(tmp_path):
    draw(tmp_path, "WEBEmo/cheerfulness/a.jpg", "WEBEmo/zest/b.jpg")
    found = labels(tmp_path / "WEBEmo", "webemo", "webemo25", folders=("class",), splits=())
    assert found == {"cheerfulness/a.jpg": "cheerfulness", "zest/b.jpg": "zest"}


def test_some_classes_of_webemo_are_read_by_name(tmp_path):
    draw(tmp_path, "WEBEmo/train/cheerfullness/a.jpg", "WEBEmo/train/Zest/b.jpg")
    assert labels(tmp_path / "WEBEmo", "webemo", "webemo25") == {"train/cheerfullness/a.jpg": "cheerfulness", "train/Zest/b.jpg": "zest"}


def test_emotion6_and_emotion_6_are_not_taken_for_each_other(tmp_path):
    draw(tmp_path, "Emotion6/images/joy/1.jpg", "Emotion-6/images/joy/zest/thrill/1.jpg")
    with pytest.raises(DataError, match=r"there are no images in .*Emotion6/images/<class>/<secondary>/<tertiary>;"):
        labels(tmp_path / "Emotion6", "emotion-6", "parrott6")
    with pytest.raises(DataError, match=r"there are no labels at .*Emotion-6/ground_truth\.txt"):
        labels(tmp_path / "Emotion-6", "emotion6", "ekman6")


def test_copies_of_fi_and_unbiasedemo_in_splits_are_read(tmp_path):
    draw(tmp_path, "FI/train/Awe/1.jpg", "FI/test/Fear/2.jpg", "UnBiasedEmo/train/love/3.jpg", "UnBiasedEmo/test/fear/4.jpg")
    own = {"folders": ("split", "class"), "splits": ("train",)}
    assert labels(tmp_path / "FI", "fi", "mikels8", **own) == {"train/Awe/1.jpg": "awe"}
    assert labels(tmp_path / "UnBiasedEmo", "unbiasedemo", "unbiasedemo6", images="", **own) == {"train/love/3.jpg": "love"}
    with pytest.raises(DataError, match=r"there are no images in .*FI/<class>; state the levels of folders"):
        labels(tmp_path / "FI", "fi", "mikels8")
