"""Plots the newest results of benchmarks/slots.py and prints the tables of docs/speed.md.

python benchmarks/plot.py docs/speed.svg
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

RESULTS = Path(__file__).parent / "results"


def newest(benchmark: str) -> dict:
    """Return the most recently written result of a benchmark."""
    return json.loads(max(RESULTS.glob(f"{benchmark}-*.json"), key=lambda path: path.stat().st_mtime).read_text())


def draw(slots: dict, path: Path) -> None:
    """Plot the speed-up over greedy generation by batch size, with a panel for each geometry."""
    geometries = {name: results for name, results in slots.items() if "labels" in results}
    figure, panels = pyplot.subplots(1, len(geometries), figsize=(9, 3.6), layout="constrained")
    for panel, (geometry, results) in zip(panels, geometries.items(), strict=True):
        batches = [batch for batch in results if batch != "labels"]
        for name in results[batches[0]]["times_faster_than_greedy"]:
            panel.plot(batches, [results[b]["times_faster_than_greedy"][name] for b in batches], marker="o", label=name)
        panel.set(title=geometry, xlabel="images in a batch", yscale="log")
        panel.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("times faster than greedy")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def slots_table(slots: dict) -> str:
    lines = []
    for geometry, results in ((name, results) for name, results in slots.items() if "labels" in results):
        batches = [batch for batch in results if batch != "labels"]
        lines += ["", f"**{geometry}**, milliseconds a batch (times faster than greedy)", "", "| batch | " + " | ".join(batches) + " |"]
        lines.append("|---|" + "---:|" * len(batches))
        for name in results[batches[0]]["milliseconds"]:
            cells = (f"{results[b]['milliseconds'][name]:.1f} ({results[b]['times_faster_than_greedy'][name]:.1f}x)" for b in batches)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines += ["", f"Labels unlike the oracle's: {results['labels']['differing']} of {results['labels']['compared']}."]
    share = slots["share of the tower"]
    parts = (f"{share[f'filling of {precision} tower']:.2%} in {precision}" for precision in ("fp32", "int8"))
    lines += ["", f"All after the tower, bundled BART, as a share of the time of ViT-B/32's tower: {', '.join(parts)}."]
    return "\n".join(lines)


def encoder_table(towers: dict) -> str:
    lines = [
        "| tower | setting | images/s | times fp32 | share of the matmul peak | least cosine with fp32 |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for tower, result in towers.items():
        for name, row in result.get("settings", {}).items():
            speed = f"{row['images_per_second']} | {row['times_fp32']} | {row['share_of_peak']:.0%}"
            lines.append(f"| {tower} | {name} | {speed} | {row['least_cosine']} |")
    if "int8 on photos" in towers:
        photos = towers["int8 on photos"]
        moved = ", ".join(f"{count} of {name}" for name, count in photos["moved"].items())
        lines += ["", f"int8 moved {photos['share']:.2%} of the labels of {photos['photos']} photos ({moved})."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    draw(newest("slots"), parser.parse_args().picture)
    print(slots_table(newest("slots")))
    print()
    print(encoder_table(newest("encoder")))


if __name__ == "__main__":
    main()
