"""Measures zero-shot answers against labels, on stored embeddings: accuracy and calibration, or the correlation of an ordinal scheme.

    python benchmarks/zero_shot.py --data emotion6/train.npz --schemes ekman6,valence --json

The embeddings are those of the model's image tower, as jobs/evaluate.py reads them; the labels are columns named as the schemes. All
schemes are answered zero-shot, also those that the model was trained for. The weights of its CLIP are downloaded by open_clip, unless
--tower-weights names their file.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from measure import report

from ugrie.evaluation.labelled_set import read_labelled_set
from ugrie.evaluation.metrics import scheme_metrics
from ugrie.model import checkpoint, zero_shot
from ugrie.schemes.scheme import load_scheme
from ugrie.vision.download import fetch_weights


def measure(model: str, weights: str | None, data: Path, names: list[str]) -> dict[str, Any]:
    folder = checkpoint.find(model)
    schemes = [load_scheme(name) for name in names]
    config = checkpoint.read_config(folder).model_copy(update={"schemes": tuple(schemes)})
    if config.tower.name is None:
        sys.exit(f"{model} bundles its image tower, which has no text tower: give a checkpoint whose tower is a CLIP, such as ugrie-l14")
    labelled = read_labelled_set(data, config, {})
    if not isinstance(labelled.table.images, np.ndarray):
        sys.exit(f"{data} holds images: give embeddings, such as an .npz with an array 'embedding'")
    file = weights or fetch_weights(config.tower)
    tower = checkpoint.named_tower_digest(config, file)
    answers = zero_shot.answer(config.tower, tower, checkpoint.mean_embedding(folder), schemes, lambda: file)
    results = {}
    for name, targets in labelled.targets.items():
        rows = targets.any(1)
        probs = answers[name].probs(labelled.table.images[rows].astype(np.float32))
        results[name] = {key: round(value, 4) for key, value in scheme_metrics(answers[name].scheme, targets[rows], probs).items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="embeddings with labels: an .npz, or Parquet")
    parser.add_argument("--schemes", required=True, help="schemes that the data have labels for, comma-separated: names, or .toml files")
    parser.add_argument("--model", default="ugrie-l14", help="a checkpoint whose image tower is a CLIP known by name")
    parser.add_argument("--tower-weights", help="the file of that CLIP's weights")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    results = measure(args.model, args.tower_weights, args.data, args.schemes.split(","))
    report(f"zero-shot-{Path(args.model).name}", results, args.json)


if __name__ == "__main__":
    main()
