"""Trains UGRIE on labelled images.

    python jobs/train.py --recipe ugrie/checkpoints/ugrie-tiny/recipe.toml --data DIR --output checkpoints/mine

The recipe names the schemes, the data sets below DIR and the model's shape (docs/training.md). With --folds K the model is first
trained K times, each time without one part of the images (groups stay together), and measured on that part; then on everything.
The exit code is 0 when the checkpoint is written, 2 when the recipe, the data or an argument is wrong (nothing was embedded then), 1
when training failed. The same command goes on where an interrupted one stopped.
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
from ugrie.schemes.scheme import SchemeError
from ugrie.schemes.template import TemplateError
from ugrie.training.recipe import RecipeError

app = App(name="train", help=__doc__, help_format="plaintext", version_flags=[], result_action="return_value")


@app.default
def main(
    *,
    recipe: Path,
    data: Annotated[Path, Parameter(help="the folder in which the recipe's data sets lie")],
    output: Annotated[Path, Parameter(help="the checkpoint's folder")],
    folds: Annotated[int, Parameter(help="parts for cross-validation, 2 or more; 0 for none")] = 0,
    bart: Annotated[str | None, Parameter(help="a pretrained BART, by its name on Hugging Face's hub or its folder")] = None,
    tower_weights: Annotated[
        str | None, Parameter(help="a file of an open_clip tower's weights; by default open_clip fetches them")
    ] = None,
    cache: Annotated[Path, Parameter(help="where embeddings, and trainings not yet done, are kept")] = Path(".ugrie-cache"),
) -> None:
    if folds < 0 or folds == 1:
        raise UserError(f"--folds {folds}: must be 2 or more, or 0 for none")
    try:
        from ugrie.training.run import train_recipe
        from ugrie.training.train import TrainingError

        measured = train_recipe(recipe, data, output, cache, folds, bart, tower_weights)
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: training needs UGRIE's train extra, pip install '.[train]'") from None
    except TrainingError as error:
        sys.exit(f"train: {error}")
    except KeyboardInterrupt:
        print("train: interrupted; the same command goes on where it stopped", file=sys.stderr)
        sys.exit(130)
    if measured:
        print(json.dumps(measured, indent=1))


def run(tokens: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, those of the command line by default. Returns the exit code."""
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, UserError, RecipeError, SchemeError, TemplateError, DataError) as error:
        print(f"train: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    sys.exit(run())
