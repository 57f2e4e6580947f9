"""Compares BART, the mapper's regression and their pools on the same trained models: accuracy, correlation, NLL and contradictions.

    python benchmarks/pool.py --recipe ugrie/checkpoints/ugrie-l14/recipe.toml --data DIR --images 400

Each draw trains on `--images` random groups (default: four fifths of them) and tests on the rest, without calibration. Differences to
BART alone are paired over the draws, with 95 % intervals (Student's t). The default share of the regression was chosen by it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import labelled
import numpy as np
import torch
from measure import mean_interval, report

from ugrie.data.labelled import Labelled
from ugrie.evaluation.evaluate import predict
from ugrie.evaluation.metrics import contradictions, scheme_metrics
from ugrie.model.model import UGRIE
from ugrie.schemes.scheme import Scheme
from ugrie.training.calibration import SHARES
from ugrie.training.train import new_model, train

MEASURES = ("accuracy", "macro_f1", "roc_auc", "nll", "ece", "pearson_r")
FIRST = 1000  # seed of the first draw


def measure(recipe_file: Path, root: Path, images: int | None, draws: int) -> dict[str, Any]:
    recipe, schemes, tower, data = labelled.read(recipe_file, root)
    recipe = recipe.model_copy(update={"validation": 0.0, "refit": False})
    groups = np.unique(data.groups)
    found: dict[float, list[dict[str, float]]] = {share: [] for share in SHARES}
    for seed in range(FIRST, FIRST + draws):
        chosen = np.random.default_rng(seed).permutation(groups)[: images or round(0.8 * len(groups))]
        training = np.isin(data.groups, chosen)
        torch.manual_seed(seed)
        model = new_model(recipe, schemes, tower)
        train(model, data.take(np.flatnonzero(training)), recipe.model_copy(update={"seed": seed}))
        held_out = data.take(np.flatnonzero(~training))
        for share in SHARES:
            found[share].append(measures(model, schemes, held_out, share))
        print(f"draw {seed - FIRST + 1} of {draws}", file=sys.stderr)
    return {
        f"share of the regression {share}": {
            name: mean_interval([each[name] for each in of])
            | {"gain over BART": mean_interval([each[name] - bart[name] for each, bart in zip(of, found[0.0], strict=True)])}
            for name in of[0]
        }
        for share, of in found.items()
    } | {"draws": draws, "groups trained on": len(chosen)}


def measures(model: UGRIE, schemes: Sequence[Scheme], data: Labelled, share: float) -> dict[str, float]:
    """Return the measures of each scheme on each data set, and the share of images whose labels contradict each other."""
    shares = dict.fromkeys((scheme.name for scheme in schemes), share)
    model.config = model.config.model_copy(update={"regression_shares": shares})
    prediction = predict(model, data.embeddings)
    found = {}
    for scheme in schemes:
        targets, probs = data.targets[scheme.name], prediction.probs[scheme.name]
        has = targets.any(1)
        for name in np.unique(data.sets[has]):
            rows = has & (data.sets == name)
            all_ = scheme_metrics(scheme, targets[rows], probs[rows], prediction.choices[scheme.name][rows])
            found |= {f"{scheme.name} on {name}: {measure}": all_[measure] for measure in MEASURES if measure in all_}
    return found | {f"contradictions: {pair}": counted["share"] for pair, counted in contradictions(prediction).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the recipe's data sets")
    parser.add_argument("--images", type=int, help="groups of images to train on; default: four fifths")
    parser.add_argument("--draws", type=int, default=10, help="random draws of the images to train on")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    results = measure(args.recipe, args.data, args.images, args.draws)
    report(f"pool-{args.recipe.parent.name}{f'-{args.images}-images' if args.images else ''}", results, args.json)


if __name__ == "__main__":
    main()
