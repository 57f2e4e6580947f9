"""A learning curve is drawn as it was measured."""

import pytest
from matplotlib.figure import Figure
from PIL import Image

from ugrie.training.learning_curve import draw_curve
from ugrie.training.state import best_epoch

CURVE = [{"epoch": i, "training": 2 - 0.3 * i, "validation": loss} for i, loss in enumerate([1.9, 1.4, 1.2, 1.3])]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draws a curve and returns the one panel of the figure as it was saved."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **more: (figures.append(figure), save(figure, *args, **more)))

    def run(curve):
        draw_curve(curve, best_epoch(curve), "mine", tmp_path / "curve.png")
        (panel,) = figures[-1].axes
        return panel

    return run


def test_both_losses_have_a_line_over_the_epochs(drawn, tmp_path):
    panel = drawn(CURVE)
    training, validation, kept = panel.get_lines()
    assert list(training.get_xdata()) == list(validation.get_xdata()) == [1, 2, 3, 4]
    assert list(training.get_ydata()) == [point["training"] for point in CURVE]
    assert list(validation.get_ydata()) == [1.9, 1.4, 1.2, 1.3]
    assert list(kept.get_xdata()) == [3, 3]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["training", "validation", "kept: epoch 3, validation 1.200"]
    with Image.open(tmp_path / "curve.png") as image:
        assert image.format == "PNG"


def test_a_single_epoch_can_be_seen(drawn):
    training, validation, _ = drawn(CURVE[:1]).get_lines()
    assert training.get_marker() == validation.get_marker() == "o"


def test_where_nothing_could_be_validated_no_epoch_is_marked(drawn):
    assert len(drawn([point | {"validation": float("nan")} for point in CURVE]).get_lines()) == 2


def test_where_nothing_is_held_out_there_is_no_line_of_it(drawn):
    assert len(drawn([point | {"validation": None} for point in CURVE]).get_lines()) == 1
