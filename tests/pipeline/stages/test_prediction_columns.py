"""The model's predictions as columns of the table."""

import numpy as np
import pytest

from pipeline.stages.prediction_columns import PredictionColumns, scheme_column
from pipeline.table.schema import Tables
from ugrie.model.prediction import Prediction
from ugrie.schemes.scheme import load_scheme
from ugrie.schemes.template import Template

SCHEMES = (load_scheme("polarity2"), load_scheme("valence"))


def test_answers_come_batch_by_batch_and_the_rest_is_null():
    predictions = PredictionColumns(Tables(SCHEMES, crop_size=8, embedding_dim=2, model="m@1", tower="t"), 3)
    probs = {"polarity2": np.float32([[0.25, 0.75]]), "valence": np.eye(9, dtype=np.float32)[[2]]}
    prediction = Prediction(Template(SCHEMES), probs, {"polarity2": np.array([1]), "valence": np.array([2])})
    predictions.fill(np.array([1]), prediction, np.float32([[0.5, -1.0]]))
    columns = {name: column.to_pylist() for name, column in predictions.columns("r").items()}
    assert columns["polarity2"] == [None, {"label": "positive", "score": 0.75, "probs": [0.25, 0.75]}, None]
    assert columns["valence"][1]["value"] == 3
    assert columns["sentence"] == [None, prediction.sentences()[0], None]
    assert columns["embedding"] == [None, [0.5, -1.0], None]
    assert (columns["model"], columns["run_id"]) == (["m@1"] * 3, ["r"] * 3)
    assert len(set(columns["annotated_at"])) == 1


@pytest.mark.parametrize("name", ["polarity3", "valence"])
def test_a_row_without_a_choice_is_null_in_its_schemes_column(name):
    scheme = load_scheme(name)
    probs = np.full((2, len(scheme.labels)), np.nan, np.float32)
    probs[1] = np.eye(len(scheme.labels))[1]
    column = scheme_column(scheme, probs, np.array([-1, 1])).to_pylist()
    assert column[0] is None
    assert column[1]["probs"][1] == 1
    assert column[1].get("label", scheme.label_names[1]) == scheme.label_names[1]
    assert column[1].get("value", 2.0) == 2.0
