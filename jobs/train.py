"""Trains UGRIE on labelled images.

    python jobs/train.py --recipe ugrie/checkpoints/ugrie-tiny/recipe.toml --data DIR --output checkpoints/mine

The recipe names the schemes, the data sets below DIR and the model's shape. With --folds K the model is first trained K
times, each time without one part of the images (groups stay together), and measured on that part; then on everything.
"""

import json
import logging
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

app = App(help=__doc__, help_format="plaintext")


@app.default
def main(
    *,
    recipe: Path,
    data: Path,
    output: Path,
    folds: int = 0,
    cache: Annotated[Path, Parameter(help="where embeddings are kept between runs")] = Path(".ugrie-cache"),
) -> None:
    from ugrie.training import train_recipe

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    measured = train_recipe(recipe, data, output, cache, folds)
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    app()
