"""The plots have the panels that the schemes need, and show the evaluation's numbers."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ugrie.evaluation.evaluate import Evaluation
from ugrie.evaluation.metrics import confusion, scheme_metrics
from ugrie.evaluation.plot import draw
from ugrie.model.prediction import Prediction
from ugrie.schemes.template import Template


def measured(*names: str, count: int = 30) -> Evaluation:
    """An evaluation of random predictions, also of schemes without labels; one image in three has no label."""
    draw, template = np.random.default_rng(0), Template.of("mikels8", *names, "dominance")
    probs = {s.name: draw.dirichlet(np.ones(len(s.labels)), count) for s in template.schemes}
    targets = {s.name: np.eye(len(s.labels))[draw.integers(len(s.labels), size=count)] for s in template.schemes}
    prediction = Prediction(template, probs, {name: values.argmax(1) for name, values in probs.items()})
    record = {}
    for scheme in template.schemes:
        if scheme.name not in names:
            del targets[scheme.name]
            continue
        targets[scheme.name][::3] = 0
        has = targets[scheme.name].any(1)
        given = targets[scheme.name][has], probs[scheme.name][has], prediction.choices[scheme.name][has]
        record[scheme.name] = {**scheme_metrics(scheme, *given), "confusion": confusion(scheme, given[0], given[2]).tolist()}
    return Evaluation({"model": "tiny@0", "data": "somewhere/set.npz", "n": count, "schemes": record}, targets, prediction)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws an evaluation and returns the figure as it was saved."""
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **more: (saved.append(figure), save(figure, *args, **more)))

    def run(*names: str, file: str = "picture.png") -> Figure:
        draw(measured(*names), tmp_path / file)
        return saved[-1]

    return run


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (("ekman6",), ["ekman6: confusion", "ekman6: reliability"]),
        (("valence",), ["valence: r", ""]),
        (("valence", "polarity2", "arousal"), ["polarity2: confusion", "polarity2: reliability", "valence: r", "arousal: r"]),
    ],
)
def test_a_categorical_scheme_has_two_panels_and_an_ordinal_one(drawn, names, titles):
    panels = drawn(*names).axes
    assert len(panels) == len(titles)
    for panel, title in zip(panels, titles, strict=True):
        assert panel.get_title().startswith(title)
        assert panel.axison == bool(title)


def test_a_confusion_states_its_counts(drawn):
    table = measured("polarity2").record["schemes"]["polarity2"]["confusion"]
    panel = drawn("polarity2").axes[0]
    assert [int(text.get_text()) for text in panel.texts] == np.ravel(table).tolist()
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        f"{name} ({n})" for name, n in zip(("negative", "positive"), np.sum(table, 1), strict=True)
    ]


def test_a_confusion_of_many_labels_is_colours_alone(drawn):
    assert len(drawn("webemo25").axes[0].texts) == 0


def test_ratings_are_drawn_against_values_of_labelled_images(drawn):
    evaluation = measured("valence")
    points = drawn("valence").axes[0].collections[0].get_offsets().data
    has = evaluation.targets["valence"].any(1)
    assert points[:, 0] == pytest.approx(evaluation.targets["valence"][has] @ np.arange(1, 10))
    assert points[:, 1] == pytest.approx(evaluation.prediction.probs["valence"][has] @ np.arange(1, 10), abs=1e-5)


def test_the_name_decides_the_format(drawn, tmp_path):
    drawn("valence")
    with Image.open(tmp_path / "picture.png") as image:
        assert min(image.size) > 500
    drawn("valence", file="picture.svg")
    assert "<svg" in (tmp_path / "picture.svg").read_text()
