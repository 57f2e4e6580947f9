"""Train a checkpoint on labelled images.

The recipe names the schemes, the data sets below the folder of --data, and the
model's shape (docs/training.md). With --folds K the recipe is cross-validated
first: K models are trained, each without one part of the images (groups stay
together), and measured on that part. Then the checkpoint is trained on all
parts. The same command resumes an interrupted one.

With --from, a checkpoint is adapted to labels of your own, a folder with
labels.csv and images/ (docs/adapting.md): ten labelled images of a scheme are
the least, and minutes suffice. What the labels gain is measured on held-out
images. A scheme that gains nothing is left as it is.

Exit codes: 0 the checkpoint is written, 1 training failed or no scheme gained,
2 the recipe, the data or an argument is wrong and no image was embedded, 130
interrupted.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pipeline.cli import command_app
from pipeline.errors import UserError
from pipeline.logs import start_log

EXAMPLE = """\
ugrie train --recipe recipe.toml --data DIR --output checkpoints/mine --folds 5
ugrie train --from ugrie-tiny --data review --output checkpoints/mine"""
app = command_app("train", __doc__, EXAMPLE)


@app.default
def train(
    *,
    recipe: Annotated[Path | None, Parameter(help="The recipe, a TOML file")] = None,
    from_: Annotated[
        str | None, Parameter(name="--from", help="In place of a recipe: the checkpoint to adapt, a bundled one's name or a folder")
    ] = None,
    data: Annotated[Path, Parameter(help="Folder that holds the recipe's data sets; with --from, the folder with labels.csv and images/")],
    output: Annotated[Path, Parameter(help="Folder to write the checkpoint to")],
    schemes: Annotated[
        str, Parameter(help="With --from: files of schemes of your own (.toml) that the labels are of, comma-separated")
    ] = "",
    folds: Annotated[int, Parameter(help="Number of folds for cross-validation, 2 or more; 0 for none")] = 0,
    bart: Annotated[
        str | None, Parameter(help="A pretrained BART in place of the recipe's: its name on Hugging Face's hub, or its folder")
    ] = None,
    tower_weights: Annotated[
        str | None, Parameter(help="File with the weights of an open_clip tower; without it open_clip fetches them")
    ] = None,
    cache: Annotated[Path, Parameter(help="Folder for embeddings and for the state of unfinished trainings")] = Path(".ugrie-cache"),
) -> None:
    if (recipe is None) == (from_ is None):
        raise UserError("give --recipe RECIPE to train a checkpoint, or --from CHECKPOINT to adapt one")
    if folds < 0 or folds == 1:
        raise UserError(f"--folds {folds}: must be 2 or more, or 0 for none")
    if recipe is not None and schemes:
        raise UserError("--schemes is for --from: a recipe names its schemes itself")
    if from_ is not None and (folds or bart is not None):
        flag = "--folds" if folds else "--bart"
        raise UserError(f"{flag} is for --recipe: an adaptation is always cross-validated, and keeps the checkpoint's BART: leave it out")
    start_log(line="%(message)s")
    try:
        if recipe is not None:
            metrics = _train(recipe, data, output, cache, folds, bart, tower_weights)
        else:
            metrics = _adapt(str(from_), data, output, cache, [name for name in schemes.split(",") if name], tower_weights)
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: training needs UGRIE's train extra: pip install 'ugrie[train]'") from None
    except KeyboardInterrupt:
        print("train: interrupted: run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    if metrics:
        print(json.dumps(metrics, indent=1))


def _train(*arguments: Any) -> dict[str, Any]:
    """Train by a recipe, and return what was cross-validated. Exits with 1 if training fails."""
    from ugrie.training.run import train_recipe
    from ugrie.training.train import TrainingError

    try:
        return train_recipe(*arguments)
    except TrainingError as error:
        sys.exit(f"train: {error}")


def _adapt(*arguments: Any) -> dict[str, Any]:
    """Adapt a checkpoint, and return the gain of each scheme. Exits with 1 if there is none."""
    from ugrie.adapting.adapt import NoGainError, adapt_checkpoint

    try:
        return {name: vars(gain) for name, gain in adapt_checkpoint(*arguments).items()}
    except NoGainError as error:
        sys.exit(f"train: {error}")
