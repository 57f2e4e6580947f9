"""The learning curve as a plot: training and validation loss of each epoch, and the epoch that is kept."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ugrie.training.state import EpochMetrics

BLUE, ORANGE, GREY = "#2b6ca3", "#d1752c", "#8a8a8a"


def draw_curve(curve: Sequence[EpochMetrics], kept: int, title: str, path: Path) -> None:
    """Write a plot of a learning curve and the epoch `kept` (-1: none). The file name's ending decides the format."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    epochs = [metrics["epoch"] + 1 for metrics in curve]
    marker = "o" if len(curve) == 1 else None  # a line of one point is invisible
    axes.plot(epochs, [metrics["training"] for metrics in curve], color=BLUE, marker=marker, label="training")
    validation = [metrics["validation"] for metrics in curve if metrics["validation"] is not None]
    if validation:
        axes.plot(epochs, validation, color=ORANGE, marker=marker, label="validation")
    if validation and kept >= 0:
        loss = validation[kept]
        axes.axvline(kept + 1, color=GREY, linestyle="--", linewidth=1, label=f"kept: epoch {kept + 1}, validation {loss:.3f}")
    axes.set(title=title, xlabel="epoch", ylabel="cross-entropy, nats a slot")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(framealpha=1, edgecolor="none")
    figure.savefig(path, dpi=150)
