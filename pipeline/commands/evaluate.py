"""Evaluate a checkpoint on labelled images: metrics of every scheme with 95 % intervals.

The data is a folder with images/ and labels.csv, whose column `image` names
the files and whose other columns are labels, each named as its scheme. Or it
is a Parquet file with a column `image`, or an .npz with an array `embedding`;
the other columns or arrays are labels. docs/evaluation.md defines the metrics.

Exit codes: 0 the metrics are printed, 2 an argument, a file or a label is
wrong.
"""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli import command_app
from pipeline.errors import UserError
from pipeline.logs import start_log

EXAMPLE = """\
ugrie evaluate --model ugrie-tiny --data DIR --range valence=1,7
ugrie evaluate --model org/name --data labelled.parquet --json evaluation.json"""
app = command_app("evaluate", __doc__, EXAMPLE)


@app.default
def evaluate(
    *,
    model: Annotated[
        str, Parameter(help="Name of a bundled checkpoint, a checkpoint's folder or URL, or org/name on the Hugging Face Hub")
    ],
    data: Annotated[Path, Parameter(help="Folder with labels.csv and images/, a .parquet file with images, or an .npz with embeddings")],
    tower_weights: Annotated[Path | None, Parameter(help="File with CLIP weights, for a checkpoint that does not bundle its tower")] = None,
    json_file: Annotated[Path | None, Parameter(name="--json", help="File to write the metrics to, as JSON")] = None,
    plot: Annotated[Path | None, Parameter(help="File to write plots to: confusion, calibration and ratings; .png, .svg or .pdf")] = None,
    ranges: Annotated[
        tuple[str, ...],
        Parameter(
            name="--range",
            negative=(),
            show_default=False,
            help="Scale of a column of ratings, such as valence=1,7; the scheme's own by default",
        ),
    ] = (),
) -> None:
    start_log(line="%(message)s")
    scales: dict[str, tuple[float, float]] = {}
    for text in ranges:
        name, bounds = scale(text)
        if name in scales:
            raise UserError(f"--range {name} is given twice: leave one out")
        scales[name] = bounds
    if tower_weights is not None and not tower_weights.is_file():
        raise UserError(f"--tower-weights {tower_weights}: there is no such file")
    for flag, file in (("--json", json_file), ("--plot", plot)):
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise UserError(f"{flag} {file}: must be a file in an existing folder")
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--plot {plot}: must end with .png, .svg or .pdf")
    try:
        from pipeline.stages.model_files import local_folder
        from ugrie.evaluation.evaluate import evaluate_model
        from ugrie.evaluation.plot import draw
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: evaluation needs UGRIE's train extra: pip install 'ugrie[train]'") from None
    evaluation = evaluate_model(str(local_folder(model, {})), data, scales, tower_weights)
    print(evaluation.table())
    if json_file is not None:
        json_file.write_text(json.dumps(evaluation.record, indent=1) + "\n")
    if plot is not None:
        draw(evaluation, plot)


def scale(text: str) -> tuple[str, tuple[float, float]]:
    """Parse `valence=1,7` into the scheme's name and its range. Raises UserError."""
    name, _, bounds = text.partition("=")
    try:
        low, high = (float(bound) for bound in bounds.split(","))
    except ValueError:
        raise UserError(f"--range {text}: must be a scheme and the two ends of its scale, such as valence=1,7") from None
    if not low < high:
        raise UserError(f"--range {text}: the first number must be the lower one: swap them")
    return name, (low, high)
