"""A learning curve as a picture: the training and validation loss of each epoch, and which epoch is kept."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ugrie.progress import Point, best_epoch

BLUE, ORANGE, GREY = "#2b6ca3", "#d1752c", "#8a8a8a"


def draw_curve(curve: Sequence[Point], title: str, path: Path) -> None:
    """Writes a picture of a curve, in the format that the name's ending says."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    epochs, best = [point["epoch"] + 1 for point in curve], best_epoch(curve)
    marker = "o" if len(curve) == 1 else None
    panel.plot(epochs, [point["training"] for point in curve], color=BLUE, marker=marker, label="training")
    panel.plot(epochs, [point["validation"] for point in curve], color=ORANGE, marker=marker, label="validation")
    if best >= 0:
        least = curve[best]["validation"]
        panel.axvline(best + 1, color=GREY, linestyle="--", linewidth=1, label=f"kept: epoch {best + 1}, validation {least:.3f}")
    panel.set(title=title, xlabel="epoch", ylabel="cross-entropy, nats a slot")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(framealpha=1, edgecolor="none")
    figure.savefig(path, dpi=150)
