"""A learning curve as a picture: the training and validation loss of each epoch, and which epoch is kept."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ugrie.training.state import Point

BLUE, ORANGE, GREY = "#2b6ca3", "#d1752c", "#8a8a8a"


def draw_curve(curve: Sequence[Point], kept: int, title: str, path: Path) -> None:
    """Writes a picture of a curve, and of the epoch that is kept (-1: none), in the format that the name's ending says."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    epochs = [point["epoch"] + 1 for point in curve]
    marker = "o" if len(curve) == 1 else None
    panel.plot(epochs, [point["training"] for point in curve], color=BLUE, marker=marker, label="training")
    validation = [point["validation"] for point in curve if point["validation"] is not None]
    if validation:
        panel.plot(epochs, validation, color=ORANGE, marker=marker, label="validation")
    if validation and kept >= 0:
        loss = validation[kept]
        panel.axvline(kept + 1, color=GREY, linestyle="--", linewidth=1, label=f"kept: epoch {kept + 1}, validation {loss:.3f}")
    panel.set(title=title, xlabel="epoch", ylabel="cross-entropy, nats a slot")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(framealpha=1, edgecolor="none")
    figure.savefig(path, dpi=150)
