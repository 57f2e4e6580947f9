"""Predictions in columns and annotations by image have the same content."""

import numpy as np
import pytest

from ugrie.model.prediction import Prediction
from ugrie.schemes.template import Template


@pytest.fixture
def prediction() -> Prediction:
    ekman = np.array([[0.1, 0.0, 0.2, 0.6, 0.1, 0.0], [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]], np.float32)
    valence = np.zeros((2, 9), np.float32)
    valence[0, 6:8] = 0.25, 0.75
    valence[1, 0] = 1
    choices = {"valence": np.array([7, 0]), "ekman6": np.array([3, 1])}
    return Prediction(Template.of("valence", "ekman6"), {"valence": valence, "ekman6": ekman}, choices)


def test_sentences_state_the_labels_chosen(prediction):
    assert prediction.sentences() == [
        "Overall, the feeling is very pleasant, the basic emotion is joy.",
        "Overall, the feeling is extremely unpleasant, the basic emotion is disgust.",
    ]


def test_an_ordinal_value_is_the_expectation_in_its_range(prediction):
    np.testing.assert_allclose(prediction.values(prediction.template.schemes[0]), [7.75, 1.0])


def test_an_annotation_is_a_row_of_the_columns(prediction):
    first, second = prediction.annotations()
    assert [first.sentence, second.sentence] == prediction.sentences()
    assert list(first.readings) == ["valence", "ekman6"]
    assert (first["valence"].label, first["valence"].value) == ("very pleasant", pytest.approx(7.75))
    assert first["ekman6"].label == "joy"
    assert first["ekman6"].probs["fear"] == pytest.approx(0.2)
    assert list(first["ekman6"].probs) == ["anger", "disgust", "fear", "joy", "sadness", "surprise"]


def test_the_score_is_the_probability_of_the_label_written(prediction):
    first, second = prediction.annotations()
    assert first["ekman6"].score == pytest.approx(0.6)
    assert (second["ekman6"].label, second["ekman6"].score) == ("disgust", 0.5)


def test_a_categorical_reading_has_no_value(prediction):
    assert all(annotation["ekman6"].value is None for annotation in prediction.annotations())


def test_a_scheme_that_was_not_asked_for_is_not_there(prediction):
    with pytest.raises(KeyError):
        next(prediction.annotations())["arousal"]


def test_the_length_is_the_number_of_images(prediction):
    assert len(prediction) == 2


def test_no_images_have_no_annotations():
    none = Prediction(Template.of("polarity2"), {"polarity2": np.zeros((0, 2), np.float32)}, {"polarity2": np.zeros(0, np.int64)})
    assert (len(none), none.sentences(), list(none.annotations())) == (0, [], [])
