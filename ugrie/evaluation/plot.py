"""Plots of an evaluation: confusion matrices, reliability diagrams, and predicted values against ratings."""

from pathlib import Path
from textwrap import shorten

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ugrie.evaluation.evaluate import Evaluation, select_labelled
from ugrie.evaluation.metrics import BINS, reliability, share_interval
from ugrie.schemes.scheme import Scheme

BLUE, GREY = "#2b6ca3", "#8a8a8a"
PANEL_INCHES, TITLE_INCHES = 4.6, 0.6
MOST_LABELS = 12  # a confusion matrix of more labels shows no counts


def draw(evaluation: Evaluation, path: Path) -> None:
    """Write the plots to a file: two panels for each categorical scheme with labels, one for each ordinal scheme with labels.

    The file name's ending decides the format.
    """
    record, prediction = evaluation.record, evaluation.prediction
    schemes = [scheme for scheme in prediction.template.schemes if scheme.name in evaluation.targets]
    by_kind = {kind: [scheme for scheme in schemes if scheme.kind == kind] for kind in ("categorical", "ordinal")}
    rows = len(by_kind["categorical"]) + (len(by_kind["ordinal"]) + 1) // 2
    figure = Figure(figsize=(2.2 * PANEL_INCHES, rows * PANEL_INCHES + TITLE_INCHES))
    figure.set_layout_engine("constrained", h_pad=0.12, w_pad=0.1)
    figure.suptitle(f"{record['model']} on {shorten(Path(record['data']).resolve().name, 40)}, {record['n']:,} images")
    panels = figure.subplots(rows, 2, squeeze=False)
    for row, scheme in zip(panels, by_kind["categorical"], strict=False):
        _draw_confusion(row[0], scheme, np.array(record["schemes"][scheme.name]["confusion"]))
        bins = reliability(*select_labelled(scheme.name, evaluation.targets, prediction))
        _draw_reliability(row[1], scheme, *bins, record["schemes"][scheme.name]["ece"])
    remaining = panels[len(by_kind["categorical"]) :].flat
    for panel, scheme in zip(remaining, by_kind["ordinal"], strict=False):
        targets, probs, _ = select_labelled(scheme.name, evaluation.targets, prediction)
        levels = np.asarray(scheme.values)
        _draw_values(panel, scheme, targets @ levels, probs @ levels, record["schemes"][scheme.name])
    if len(by_kind["ordinal"]) % 2:
        panels[-1, 1].axis("off")
    figure.savefig(path, dpi=150)


def _draw_confusion(panel: Axes, scheme: Scheme, confusion: np.ndarray) -> None:
    """Draw a confusion matrix: colours are shares of the row, cells hold counts if there is room."""
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels, size = scheme.label_names, min(9.0, 120 / len(scheme.labels))
    panel.set_xticks(range(len(labels)), labels, rotation=90 if len(labels) > 4 else 0, fontsize=size)
    panel.set_yticks(range(len(labels)), [f"{label} ({n:,})" for label, n in zip(labels, confusion.sum(1), strict=True)], fontsize=size)
    panel.set(title=f"{scheme.name}: confusion, coloured by share of the row", xlabel="label written", ylabel="label (images)")
    if len(labels) <= MOST_LABELS:
        for (row, column), count in np.ndenumerate(confusion):
            colour = "white" if shares[row, column] > 0.5 else "black"
            panel.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=size)


def _draw_reliability(panel: Axes, scheme: Scheme, count: np.ndarray, accuracy: np.ndarray, confidence: np.ndarray, error: float) -> None:
    """Draw a reliability diagram: the accuracy of each bin of probability, and in grey the share of images in it."""
    edges = np.arange(BINS) / BINS
    panel.bar(edges, count / count.sum(), 1 / BINS, align="edge", color=GREY, alpha=0.35)
    panel.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    filled = np.flatnonzero(count)
    bounds = np.array([share_interval(round(accuracy[i] * count[i]), int(count[i])) for i in filled]).T
    panel.vlines(confidence[filled], *bounds, color=BLUE, linewidth=1)
    panel.scatter(confidence, accuracy, color=BLUE, zorder=3, clip_on=False)
    panel.set(
        title=f"{scheme.name}: reliability, ECE {error:.3f}",
        xlabel="probability of the label written (bars: share of images)",
        ylabel="share that is right, 95 % interval",
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
    )


def _draw_values(panel: Axes, scheme: Scheme, ratings: np.ndarray, values: np.ndarray, metrics: dict) -> None:
    """Draw predicted values against ratings."""
    assert scheme.range is not None
    panel.plot(scheme.range, scheme.range, color=GREY, linestyle="--", linewidth=1)
    panel.scatter(ratings, values, s=8, alpha=min(1.0, max(0.25, 60 / len(values))), color=BLUE, linewidths=0)
    low, high = scheme.range
    margin = (high - low) / 40
    panel.set(
        title=f"{scheme.name}: r {metrics['pearson_r']:.2f}, CCC {metrics['ccc']:.2f}, MAE {metrics['mae']:.2f}",
        xlabel="rating",
        ylabel="value",
        xlim=(low - margin, high + margin),
        ylim=(low - margin, high + margin),
        aspect="equal",
    )
