"""Plots the newest results of benchmarks/kshot.py and benchmarks/unified.py, for docs/models.md.

python benchmarks/plot_learning.py docs/learning.svg
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from plot import RESULTS, newest

BLUE, GREY, INK = "#2b6ca3", "#8a8a8a", "#333333"
NAMES = {"accuracy": "accuracy", "macro_f1": "macro-F1", "pearson_r": "r"}
SHOWN = {"ugrie-l14": ("accuracy", "pearson_r"), "ugrie-tiny": ("macro_f1", "pearson_r")}  # ugrie-tiny's classes are imbalanced


def draw_shots(panel: Axes, results: dict) -> None:
    """Plot accuracy by labelled images a class, plus and minus a standard deviation over draws."""
    for contender, color in (("UGRIE", BLUE), ("logistic regression", GREY)):
        by_shots = results[contender]
        shots = [int(k) for k in by_shots]
        means, sds = ([100 * values[name] for values in by_shots.values()] for name in ("accuracy", "sd"))
        panel.plot(shots, means, color=color, marker="o", label=contender)
        low, high = ([mean + sign * sd for mean, sd in zip(means, sds, strict=True)] for sign in (-1, 1))
        panel.fill_between(shots, low, high, color=color, alpha=0.15, linewidth=0)
    panel.set(title="Few labels: six emotions on Emotion6", xscale="log", xlabel="labelled images of each emotion", ylabel="accuracy, %")
    panel.set_xticks(shots, [str(k) for k in shots])
    panel.minorticks_off()
    panel.legend(frameon=False, loc="lower right")


def draw_unified(panel: Axes, studies: dict[str, dict]) -> None:
    """Plot the gain of one model of all schemes over a model of one scheme, with 95 % intervals over seeds."""
    names, ticks = [], []
    for checkpoint, study in studies.items():
        for where, measures in study["measures"].items():
            for measure, found in measures.items():
                if measure not in SHOWN[checkpoint]:
                    continue
                low, high = (100 * bound for bound in found["difference"]["interval"])
                at = len(names)
                panel.plot([low, high], [at, at], color=BLUE, linewidth=2)
                panel.plot(100 * found["difference"]["mean"], at, "o", color=BLUE)
                names.append(f"{where.removesuffix('.npz').removesuffix('/train')}, {NAMES[measure]}")
                ticks.append(at)
    panel.axvline(0, color=INK, linewidth=1)
    panel.set(title="One model for all schemes, against one each", xlabel="gain in hundredths, 95 % interval")
    panel.set_yticks(ticks, names)
    panel.invert_yaxis()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    path = parser.parse_args().picture
    found = {name: newest(f"unified-{name}") for name in SHOWN if list(RESULTS.glob(f"unified-{name}-*.json"))}
    studies = {name: study for name, study in found.items() if study["seeds"] > 1}  # one seed has no interval
    figure = pyplot.figure(figsize=(11 if studies else 6, 4.2), layout="constrained")
    panels = figure.subplots(1, 2 if studies else 1, squeeze=False)[0]
    draw_shots(panels[0], newest("kshot-ugrie-l14"))
    if studies:
        draw_unified(panels[1], studies)
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
