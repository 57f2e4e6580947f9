"""Measures a checkpoint on labelled images, scheme by scheme, with 95 % intervals.

    python jobs/evaluate.py --model ugrie-tiny --data DIR --range valence=1,7 --json evaluation.json --plot evaluation.png

DIR holds labels.csv (a column `image`, and others named as schemes) and images/; or it is Parquet with a column `image`, or
an .npz with `embedding`, and the others likewise. docs/evaluation.md says what is measured. The exit code is 2 when an argument
or a label is wrong.
"""

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from pipeline.errors import UserError
from ugrie.data.table import DataError
from ugrie.model.checkpoint import CheckpointError

app = App(name="evaluate", help=__doc__, help_format="plaintext", version_flags=[], result_action="return_value")


@app.default
def main(
    *,
    model: Annotated[str, Parameter(help="a bundled checkpoint's name, or a checkpoint's folder")],
    data: Annotated[Path, Parameter(help="folder with labels.csv and images/, or .parquet with images, or .npz with embeddings")],
    tower_weights: Annotated[Path | None, Parameter(help="file of CLIP weights, for a checkpoint that does not bundle its tower")] = None,
    json_file: Annotated[Path | None, Parameter(name="--json", help="where to write the measures")] = None,
    plot: Annotated[Path | None, Parameter(help="where to draw confusion, calibration and ratings; .png, .svg or .pdf")] = None,
    ranges: Annotated[
        tuple[str, ...],
        Parameter(
            name="--range",
            negative=(),
            show_default=False,
            help="the scale of a column of ratings, such as valence=1,7; by default the scheme's",
        ),
    ] = (),
) -> None:
    scales: dict[str, tuple[float, float]] = {}
    for text in ranges:
        name, bounds = scale(text)
        if name in scales:
            raise UserError(f"--range {name}: is given twice")
        scales[name] = bounds
    if tower_weights is not None and not tower_weights.is_file():
        raise UserError(f"--tower-weights {tower_weights}: there is no such file")
    for flag, file in (("--json", json_file), ("--plot", plot)):
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise UserError(f"{flag} {file}: must be a file in a folder that is there")
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--plot {plot}: must end with .png, .svg or .pdf")
    try:
        from ugrie.evaluation.evaluate import evaluate_model
        from ugrie.evaluation.plot import draw
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: evaluation needs UGRIE's train extra, pip install '.[train]'") from None
    evaluation = evaluate_model(model, data, scales, tower_weights)
    print(evaluation.table())
    if json_file is not None:
        json_file.write_text(json.dumps(evaluation.record, indent=1) + "\n")
    if plot is not None:
        draw(evaluation, plot)


def scale(text: str) -> tuple[str, tuple[float, float]]:
    """`valence=1,7` as the scheme's name and its range."""
    name, _, bounds = text.partition("=")
    try:
        low, high = (float(bound) for bound in bounds.split(","))
    except ValueError:
        raise UserError(f"--range {text}: must be a scheme and two numbers, such as valence=1,7") from None
    if not low < high:
        raise UserError(f"--range {text}: the first number must be the lower one")
    return name, (low, high)


def run(tokens: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, those of the command line by default. Returns the exit code."""
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, UserError, CheckpointError, DataError) as error:
        print(f"evaluate: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.exit(run())
