"""Files of labels: read, checked, merged, and written as they were."""

import pytest

from pipeline.errors import UserError
from pipeline.review.labels import Answer, merge, read_answers, to_csv
from pipeline.review.record import LABELS

HEAD = "image,person,mood,level,cant_tell,not_for_set\n"


@pytest.fixture
def read(make_review, tmp_path):
    def read(text, name="labels.csv"):
        (tmp_path / name).write_text(text)
        return read_answers(tmp_path / name, make_review(5, 5))

    return read


def test_answers_are_read_as_they_are_written(read, make_review):
    answers = [
        Answer("0.jpg", 'Anna "A", B', {"mood": 2, "level": 0}),
        Answer("1.jpg", "Ben", {"mood": 1}, ("level",)),
        Answer("2.jpg", "Ben", {}, (), True),
    ]
    assert read(to_csv(answers, make_review(5, 5))) == answers


def test_the_last_answer_of_a_person_counts(read):
    assert read(f"{HEAD}0.jpg,a,good,,,\n0.jpg,b,bad,,,\n0.jpg,a,bad,3,,\n") == [
        Answer("0.jpg", "a", {"mood": 2, "level": 2}),
        Answer("0.jpg", "b", {"mood": 2}),
    ]


def test_a_file_without_names_is_its_own_person_s(read):
    assert read(f"{HEAD}0.jpg,,good,,,\n", "carla.csv")[0].person == "carla"
    assert read("image,mood\n0.jpg,good\n", "dan.csv")[0].person == "dan"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEAD}0.jpg,a,godo,,,\n", "labels.csv, line 2, mood: 'godo' is no label (did you mean 'good'?): good, so-so, bad"),
        (f"{HEAD}0.jpg,a,,2.5,,\n", "labels.csv, line 2, level: '2.5' is no level of the scale: 1, 2, 3"),
        (f"{HEAD}x.jpg,a,good,,,\n", "labels.csv, line 2: 'x.jpg' is no image of this review: is it another review's file?"),
        ("name,mood\n", "labels.csv has no column 'image': give the labels.csv that a review's page saved"),
        ("", "labels.csv has no column 'image'"),
    ],
)
def test_what_is_wrong_is_named(read, text, said):
    with pytest.raises(UserError) as raised:
        read(text)
    assert said in str(raised.value)


def test_a_file_that_is_not_there_or_no_text_is_named(make_review, tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_answers(tmp_path / "labels.csv", make_review(1, 1))
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="no text in UTF-8"):
        read_answers(tmp_path / "labels.csv", make_review(1, 1))


def test_several_people_s_files_become_one(make_review, tmp_path):
    review = make_review(5, 5)
    (tmp_path / "anna.csv").write_text(f"{HEAD}0.jpg,,good,1,,\n1.jpg,,bad,2,,\n")
    (tmp_path / "ben.csv").write_text(f"{HEAD}0.jpg,Ben,bad,,level,\n")
    merged = merge([tmp_path / "anna.csv", tmp_path / "ben.csv"], tmp_path, review)
    assert [(answer.image, answer.person) for answer in merged] == [("0.jpg", "Ben"), ("0.jpg", "anna"), ("1.jpg", "anna")]
    assert read_answers(tmp_path / LABELS, review) == merged


def test_files_of_nobody_with_one_name_are_refused(make_review, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "labels.csv").write_text(f"{HEAD}0.jpg,,good,,,\n")
    with pytest.raises(UserError, match="have the same name: rename one, such as anna"):
        merge([tmp_path / "one" / "labels.csv", tmp_path / "two" / "labels.csv"], tmp_path, make_review(5, 5))
