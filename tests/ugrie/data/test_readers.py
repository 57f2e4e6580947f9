"""Readers: in every format of a data set the rows keep their images; errors name the file and the remedy."""

import json

import numpy as np
import pytest

from ugrie.data.format import Derived, Format
from ugrie.data.readers import read_table
from ugrie.data.table import DataError


@pytest.fixture
def write(tmp_path):
    """Write files (path: text) below a folder; return the folder."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "set"

    return write


def images(*names, folder="images"):
    return {f"{folder}/{name}" if folder else name: "" for name in names}


def rows(table, *columns):
    return list(zip(*(table.columns[name].tolist() for name in columns), strict=True))


# Tables of labels


def test_a_table_beside_its_images(write):
    path = write({"labels.csv": "image,mood\nb.jpg, good \na.jpg,\n\n", **images("a.jpg", "b.jpg", "other.jpg")})
    table = read_table(path, Format())
    assert table.source == path / "labels.csv"
    assert list(table.images) == [path / "images" / "b.jpg", path / "images" / "a.jpg"]
    assert rows(table, "image", "mood") == [("b.jpg", "good"), ("a.jpg", "")]
    assert table.names.tolist() == ["b.jpg", "a.jpg"]


def test_a_table_of_another_form(write):
    form = Format(labels="list.txt", delimiter=" ", header=False, columns=("ID", "mood"), images="", file="x{ID}-{mood}.png", quote="'")
    path = write({"list.txt": "\ufeff1 'good'\n2  bad\n", **images("x1-good.png", "x2-bad.png", folder="")})
    table = read_table(path, form)
    assert list(table.images) == [path / "x1-good.png", path / "x2-bad.png"]
    assert rows(table, "ID", "mood") == [("1", "good"), ("2", "bad")]


def test_names_may_stand_in_place_of_the_headers(write):
    path = write({"labels.csv": "[file],[mood]\na.jpg,good\n", **images("a.jpg")})
    assert rows(read_table(path, Format(columns=("image", "mood"))), "image", "mood") == [("a.jpg", "good")]


def test_a_table_for_each_split_may_be_json(write):
    form = Format(labels={"train": "train.json", "test": "test.json"}, header=False, columns=("mood", "image"), images="")
    tables = {"train.json": json.dumps([["good", "a/1.jpg"], ["bad", "a/2.jpg"]]), "test.json": json.dumps([["good", "a/3.jpg"]])}
    path = write(tables | images("a/1.jpg", "a/2.jpg", "a/3.jpg", folder=""))
    table = read_table(path, form)
    assert rows(table, "split", "image") == [("train", "a/1.jpg"), ("train", "a/2.jpg"), ("test", "a/3.jpg")]
    test = read_table(path, form.model_copy(update={"splits": ("test",)}))
    assert rows(test, "mood", "image") == [("good", "a/3.jpg")]
    assert list(test.images) == [path / "a" / "3.jpg"]
    assert test.names.tolist() == ["a/3.jpg"]


def test_copies_of_a_table_may_lack_columns(write):
    form = Format(columns=("mood", "note", "image"), optional=("note",), header=False)
    path = write({"labels.csv": "good,a.jpg\nbad,b.jpg\n", **images("a.jpg", "b.jpg")})
    assert rows(read_table(path, form), "mood", "image") == [("good", "a.jpg"), ("bad", "b.jpg")]
    write({"labels.csv": "good,?,a.jpg\n"})
    assert rows(read_table(path, form), "mood", "note", "image") == [("good", "?", "a.jpg")]
    write({"labels.csv": "good,?\n"})
    with pytest.raises(DataError, match=r"labels\.csv, line 1 has 2 cells for 1 columns: image; all must be alike$"):
        read_table(path, form.model_copy(update={"columns": ("image",)}))


def test_a_column_may_be_found_in_another(write):
    path = write({"labels.csv": "image,Theme\n1.jpg,Acorns 12\n2.jpg,Beach\n", **images("1.jpg", "2.jpg")})
    form = Format(derived={"theme": Derived(column="Theme", pattern=r"^(.*?)\s*\d*$")})
    assert read_table(path, form).columns["theme"].tolist() == ["Acorns", "Beach"]
    with pytest.raises(DataError, match=r"labels.csv: the pattern of 'theme', \^\(A\.\*\)\$, finds nothing in 'Beach'"):
        read_table(path, Format(derived={"theme": Derived(column="Theme", pattern="^(A.*)$")}))


@pytest.mark.parametrize(
    ("files", "form", "message"),
    [
        ({"labels.csv": "image,mood\na.jpg,good,very\n"}, {}, "labels.csv, line 2 has 3 cells for 2 columns: image, mood"),
        ({"labels.csv": "image,mood\na.jpg,good\nb.jpg\n"}, {}, "labels.csv, line 3 has 1 cells for 2 columns"),
        ({"labels.csv": ""}, {}, "labels.csv is empty"),
        ({"labels.csv": "image,mood\n"}, {}, "labels.csv holds no images"),
        ({"labels.csv": "mage,mood\na.jpg,good\n"}, {}, r"labels.csv has no column 'image' \(did you mean 'mage'\?\); it has mage, mood"),
        ({"labels.csv": "ID\n1\n"}, {"file": "{Id}.jpg"}, "labels.csv has no column 'Id'; it has ID"),
        (
            {"labels.csv": "image\na.jpg\nb.jpg\nc.jpg\nd.jpg\ne.jpg\n"},
            {},
            r"labels.csv: 4 of 5 images are not in .*images: 'b.jpg', 'c.jpg', 'd.jpg', …$",
        ),
        ({"labels.csv": "image\na.jpg\n"}, {"splits": ("train",)}, "labels.csv has no column 'split'"),
        (
            {"labels.csv": "image,split\na.jpg,train\n"},
            {"splits": ("trian",)},
            r"no split 'trian' \(did you mean 'train'\?\); it has train",
        ),
        ({}, {"labels": "other.csv"}, "there are no labels at .*other.csv"),
        ({"list.json": "{"}, {"labels": "list.json", "header": False, "columns": ("image",)}, "list.json can't be read as a table"),
        ({"list.json": "[1]"}, {"labels": "list.json", "header": False, "columns": ("image",)}, "list.json can't be read as a table"),
        ({"list.json": '[["a.jpg"], []]'}, {"labels": "list.json", "header": False, "columns": ("image",)}, "list.json, row 2 has 0 cells"),
        (
            {"a.csv": "image,x\na.jpg,1\n", "b.csv": "image\na.jpg\n"},
            {"labels": {"a": "a.csv", "b": "b.csv"}},
            "a, b have different columns",
        ),
    ],
)
def test_what_a_table_lacks_is_named(write, files, form, message):
    path = write(files | images("a.jpg"))
    with pytest.raises(DataError, match=message):
        read_table(path, Format(**form))


def test_bytes_that_are_no_text_are_named(write):
    path = write(images("a.jpg"))
    (path / "labels.csv").write_bytes(b"image\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"labels\.csv can't be read as a table"):
        read_table(path, Format())


# Folders


FOLDERS = {"joy/1.jpg": "", "joy/2.PNG": "", "fear/3.jpeg": "", "fear/notes.txt": "", ".cache/4.jpg": "", "README.md": "", "5.jpg": ""}


def test_folders_are_classes(write):
    path = write(FOLDERS)
    table = read_table(path, Format())
    assert rows(table, "class", "image") == [("fear", "fear/3.jpeg"), ("joy", "joy/1.jpg"), ("joy", "joy/2.PNG")]
    assert list(table.images) == [path / "fear" / "3.jpeg", path / "joy" / "1.jpg", path / "joy" / "2.PNG"]


def test_folders_may_be_splits_of_classes_or_none(write):
    path = write({f"{split}/{name}": "" for split in ("train", "val") for name in FOLDERS})
    table = read_table(path, Format(folders=("split", "class"), splits=("val",)))
    assert rows(table, "split", "class") == [("val", "fear"), ("val", "joy"), ("val", "joy")]
    assert read_table(path / "train", Format(folders=())).columns["image"].tolist() == ["5.jpg"]


def test_folders_may_lie_in_the_folder_of_images(write):
    path = write({f"{folder}/{name}": "" for folder in ("pictures", "maps") for name in FOLDERS})
    table = read_table(path, Format(images="pictures", folders=("class",)))
    assert rows(table, "class", "image") == [("fear", "fear/3.jpeg"), ("joy", "joy/1.jpg"), ("joy", "joy/2.PNG")]
    assert table.images[0] == path / "pictures" / "fear" / "3.jpeg"


def test_folders_of_another_depth_are_pointed_out(write):
    path = write({"train/joy/1.jpg": ""})
    with pytest.raises(DataError, match=r'no images in .*set/<class>; .* folders = \["split", "class"\]'):
        read_table(path, Format(folders=("class",)))


# Anything else


def test_a_path_that_is_not_there_is_named_with_its_neighbour(write):
    path = write({"labels.csv": ""})
    with pytest.raises(DataError, match=r"there is no data set at .*sett \(did you mean 'set'\?\)"):
        read_table(path.with_name("sett"), Format())


@pytest.mark.parametrize("files", [{"a.jpg": ""}, {"train/joy/1.jpg": ""}, {"labels.txt": "image\n", "images/a.jpg": ""}])
def test_what_is_no_data_set_is_told_what_would_be_one(write, files):
    with pytest.raises(DataError, match=r"set is not a data set: it has no labels\.csv, no \.parquet files and no folders of images"):
        read_table(write(files), Format())


def test_a_file_that_is_no_data_set_is_named(write):
    with pytest.raises(DataError, match=r"labels\.csv is not a data set"):
        read_table(write({"labels.csv": "image\n"}) / "labels.csv", Format())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mood": np.zeros(2)}, "a.npz has no column 'embedding'"),
        ({"embedding": np.zeros(3)}, r"`embedding` is float64 \[3\]"),
        ({"embedding": np.zeros((3, 2), int)}, r"`embedding` is int64 \[3, 2\]"),
        ({"embedding": np.array([[1.0], [np.nan]])}, "row 1 of `embedding` is not finite"),
        ({"embedding": np.zeros((3, 2)), "mood": np.zeros(2)}, r"'mood' has the shape \[2\], but there are 3 embeddings"),
    ],
)
def test_what_is_wrong_with_an_npz_is_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "a.npz", Format())


def test_an_npz_that_is_none_is_named(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match=r"a\.npz can't be read"):
        read_table(tmp_path / "a.npz", Format())
