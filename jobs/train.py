"""Trains a UGRIE checkpoint on labelled images.

    python jobs/train.py --recipe ugrie/checkpoints/ugrie-tiny/recipe.toml --data DIR --output checkpoints/mine

The recipe names the schemes, the data sets below DIR and the model's shape (docs/training.md). With --folds K the recipe is
cross-validated first: K models are trained, each without one part of the images (groups stay together), and measured on that part. Then
the checkpoint is trained on all parts. The same command resumes an interrupted one.

Exit codes: 0 the checkpoint is written; 1 training failed; 2 the recipe, the data or an argument is wrong, and no image was embedded;
130 interrupted.
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
    recipe: Annotated[Path, Parameter(help="the recipe, a TOML file")],
    data: Annotated[Path, Parameter(help="the folder that holds the recipe's data sets")],
    output: Annotated[Path, Parameter(help="the folder to write the checkpoint to")],
    folds: Annotated[int, Parameter(help="number of folds for cross-validation, 2 or more; 0 for none")] = 0,
    bart: Annotated[
        str | None, Parameter(help="a pretrained BART in place of the recipe's: its name on Hugging Face's hub, or its folder")
    ] = None,
    tower_weights: Annotated[
        str | None, Parameter(help="a file with the weights of an open_clip tower; without it open_clip fetches them")
    ] = None,
    cache: Annotated[Path, Parameter(help="the folder for embeddings and for the state of unfinished trainings")] = Path(".ugrie-cache"),
) -> None:
    if folds < 0 or folds == 1:
        raise UserError(f"--folds {folds}: must be 2 or more, or 0 for none")
    try:
        from ugrie.training.run import train_recipe
        from ugrie.training.train import TrainingError

        metrics = train_recipe(recipe, data, output, cache, folds, bart, tower_weights)
    except ModuleNotFoundError as error:
        raise UserError(f"{error}: training needs UGRIE's train extra: pip install '.[train]'") from None
    except TrainingError as error:
        sys.exit(f"train: {error}")
    except KeyboardInterrupt:
        print("train: interrupted: run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    if metrics:
        print(json.dumps(metrics, indent=1))


def run(tokens: Sequence[str] | None = None) -> int:
    """Run the job with these arguments, by default the command line's, and return the exit code."""
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
