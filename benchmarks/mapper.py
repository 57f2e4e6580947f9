"""Measures how training grows with the number of labelled images, and how many landmarks the regression needs.

    python benchmarks/mapper.py

Embeddings are synthetic: Gaussian vectors around a common mean, with variances that fall as those of CLIP's principal components do. A
random network draws each image's label of `mikels8` and its `valence` from them. Each number of images is measured in a process of its
own, whose peak memory includes everything. Seconds are a CPU's, summed over threads, which other load on the machine hardly changes; the
wall clock's are beside them. `by_landmarks` is of the regression alone, on held-out images. `scikit-learn` is the
regression with all features in memory and each fold fitted from its rows, as `Ridge` and `cross_val_predict` do it.
"""

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from measure import report
from sklearn.gaussian_process.kernels import Matern
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict

from ugrie.data.labelled import Labelled
from ugrie.evaluation.evaluate import predict
from ugrie.model.mapper import LENGTH, Mapper
from ugrie.model.model import UGRIE
from ugrie.schemes.scheme import load_scheme
from ugrie.training import kernel_ridge, train
from ugrie.training.batches import split
from ugrie.training.recipe import Bart, Recipe
from ugrie.vision.config import TowerConfig

DIM = 768
CLASSES, RATING = load_scheme("mikels8"), load_scheme("valence")
SCHEMES = [CLASSES, RATING]
HELD_OUT = 4000
PARTS = (Mapper, "fit_projection"), (kernel_ridge, "fit_regression"), (train, "_train_epoch"), (train, "validation_loss")
SEEN = 240_000  # images seen in training, in all epochs
SWEEP = (175, 350, 700, 1400, 2000)
SKLEARN = 4000  # images up to which scikit-learn's way is measured


def synthetic(images: int, bend: float = 2.0) -> Labelled:
    """Return labelled images; the first ones are the same whatever their number. The larger `bend`, the less linear is the network."""
    fixed = np.random.default_rng(0)
    spread = (1 + np.arange(DIM)) ** -0.5
    turn = np.linalg.qr(fixed.normal(size=(DIM, DIM)))[0]
    centre = fixed.normal(size=DIM)
    centre *= np.linalg.norm(spread) / np.linalg.norm(centre)
    layers = []
    for width_in, width_out in ((DIM, 64), (64, 64), (64, len(CLASSES.labels) + 1)):
        layer = fixed.normal(size=(width_in, width_out)) * (spread[:, None] if width_in == DIM else 1.0)
        layers.append(layer / np.linalg.norm(layer * (spread[:, None] if width_in == DIM else 1.0), axis=0))
    parts = []
    for block in range(0, images, 10_000):
        draw = np.random.default_rng((1, block))
        latent = draw.normal(size=(10_000, DIM)) * spread
        scores = 4 * np.tanh(bend * np.tanh(bend * latent @ layers[0]) @ layers[1]) @ layers[2]
        embeddings = ((latent @ turn + centre) * draw.uniform(5, 15, (10_000, 1))).astype(np.float32)
        classes = (scores[:, :-1] + draw.gumbel(size=(10_000, len(CLASSES.labels)))).argmax(1)
        ratings = np.clip(np.rint(4 + scores[:, -1] + 0.7 * draw.normal(size=10_000)), 0, 8).astype(int)
        parts.append((embeddings, np.eye(len(CLASSES.labels), dtype=np.float32)[classes], np.eye(9, dtype=np.float32)[ratings]))
    embeddings, classes, ratings = (np.concatenate(values)[:images] for values in zip(*parts, strict=True))
    return Labelled(embeddings, {CLASSES.name: classes, RATING.name: ratings}, np.arange(images).astype(str), np.ones(images, np.int64))


def accuracy(scores: np.ndarray, data: Labelled) -> dict[str, float]:
    """Return the accuracy of the classes' scores and the correlation of the rating's, the last column."""
    truth = data.targets[CLASSES.name].argmax(1)
    rating = data.targets[RATING.name] @ np.array(RATING.values)
    return {"accuracy": float((scores[:, :-1].argmax(1) == truth).mean()), "pearson_r": float(np.corrcoef(scores[:, -1], rating)[0, 1])}


@contextmanager
def timed(functions: Sequence[tuple[Any, str]]) -> Iterator[dict[str, list[float]]]:
    """Note the seconds of each call of some functions, given as owner and name. Yields them by name."""
    seconds: dict[str, list[float]] = {}

    def noting(function: Callable, name: str) -> Callable:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            clock = time.process_time()
            result = function(*arguments, **named)
            seconds.setdefault(name.strip("_"), []).append(time.process_time() - clock)
            return result

        return call

    originals = [getattr(owner, name) for owner, name in functions]
    for (owner, name), original in zip(functions, originals, strict=True):
        setattr(owner, name, noting(original, name))
    try:
        yield seconds
    finally:
        for (owner, name), original in zip(functions, originals, strict=True):
            setattr(owner, name, original)


def measure(images: int) -> dict[str, Any]:
    """Train on some images as `jobs/train.py` does. Returns the seconds of each part, the peak memory and the held-out accuracy."""
    data = synthetic(images + HELD_OUT)
    learn, held_out = data.take(np.arange(images)), data.take(np.arange(images, images + HELD_OUT))
    del data
    recipe = recipe_for(images)
    torch.manual_seed(0)
    model = train.new_model(recipe, SCHEMES, TowerConfig(embedding_dim=DIM, mean=(0.5, 0.5, 0.5), deviation=(0.5, 0.5, 0.5)))
    clock, wall_clock = time.process_time(), time.perf_counter()
    with timed(PARTS) as seconds:
        curve = train.train(model, learn, recipe)
    total, wall = time.process_time() - clock, time.perf_counter() - wall_clock
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    predicted = predict(model, held_out.embeddings)
    answers = np.column_stack([predicted.probs[CLASSES.name], predicted.values(RATING)])
    trained = split(learn, recipe.validation, np.random.default_rng(recipe.seed))[0]
    return {
        "landmarks": len(model.mapper.landmarks),
        "wall_seconds": round(wall, 1),
        "seconds": {"all": round(total, 1), **{name: round(sum(times), 1) for name, times in seconds.items()}},
        "epochs": len(curve),
        "seconds_of_an_epoch": round(float(np.median(seconds["train_epoch"])), 1),
        "peak_gigabytes": round(gigabytes, 2),
        "load_of_the_machine": round(os.getloadavg()[2], 1),  # of the last 15 minutes, this process included
        "model": {name: round(value, 4) for name, value in accuracy(answers, held_out).items()},
        "by_landmarks": by_landmarks(model, learn.take(trained), held_out, seconds["fit_regression"][0]),
        **({"scikit-learn": beside_sklearn(learn)} if images <= SKLEARN else {}),
    }


def recipe_for(images: int) -> Recipe:
    """Return the recipe of ugrie-l14 without its landmarks, and with fewer epochs for more images."""
    return Recipe(
        name="synthetic",
        schemes=(),
        tower="lite0",
        data=(),
        components=400,
        dropout=0.1,
        mixup=0.5,
        form_weight=0.02,
        validation=0.1,
        epochs=min(40, max(2, SEEN // images)),
        learning_rate=1e-3,
        bart=Bart(d_model=64, layers=1),
    )


def by_landmarks(model: UGRIE, learn: Labelled, held_out: Labelled, seconds: float) -> dict[str, dict[str, float]]:
    """Return seconds and held-out accuracy of the regression alone by number of landmarks, and their ratios to the chosen number's.

    That is the model's, which took `seconds`.
    """
    mapper, chosen = model.mapper, len(model.mapper.landmarks)
    embeddings = torch.from_numpy(held_out.embeddings)
    results: dict[str, dict[str, float]] = {str(chosen): {"seconds": seconds, **accuracy(mapper.answers(embeddings).numpy(), held_out)}}
    components = components_of(mapper, learn)
    for landmarks in (count for count in SWEEP if count < chosen):
        clock = time.process_time()
        fitted = kernel_ridge.fit_regression(components, learn.targets, SCHEMES, learn.groups, landmarks)
        taken = time.process_time() - clock
        mapper.set_regression(*(torch.from_numpy(values) for values in (fitted.landmarks, fitted.weights, fitted.bias)))
        results[str(landmarks)] = {"seconds": taken, **accuracy(mapper.answers(embeddings).numpy(), held_out)}
    return {
        landmarks: {
            **{name: round(value, 4) for name, value in found.items()},
            **{f"{name}_ratio": round(value / results[str(chosen)][name], 4) for name, value in found.items()},
        }
        for landmarks, found in results.items()
    }


def components_of(mapper: Mapper, data: Labelled) -> np.ndarray:
    return torch.cat([mapper.components(block) for block in torch.from_numpy(data.embeddings).split(8192)]).numpy()


def beside_sklearn(learn: Labelled) -> dict[str, float]:
    """Return the seconds of the regression and of the same by scikit-learn, and the largest difference of their training predictions."""
    mapper = Mapper(DIM, 400, 1, 1, 1, 1, 1)
    mapper.fit_projection(torch.from_numpy(learn.embeddings))
    components = components_of(mapper, learn)
    clock = time.process_time()
    ours = kernel_ridge.fit_regression(components, learn.targets, SCHEMES, learn.groups, kernel_ridge.landmarks_for(len(learn)))
    between = time.process_time()
    theirs = sklearn_predictions(components, ours.landmarks, learn)
    seconds = {"ours": between - clock, "scikit-learn": time.process_time() - between}
    return {
        **{name: round(value, 2) for name, value in seconds.items()},
        "times_faster": round(seconds["scikit-learn"] / seconds["ours"], 2),
        "largest_difference": float(np.abs(ours.predictions - theirs).max()),
    }


def sklearn_predictions(components: np.ndarray, landmarks: np.ndarray, learn: Labelled) -> np.ndarray:
    """Return out-of-fold predictions by scikit-learn alone, on given landmarks and the same folds."""
    features = Nystroem(Matern(LENGTH, nu=0.5), n_components=len(landmarks)).fit(landmarks).transform(components)
    parts = []
    for scheme in SCHEMES:
        outputs = kernel_ridge.scaled_outputs(scheme, learn.targets[scheme.name])
        folds = kernel_ridge.held_out_folds(scheme, learn.targets[scheme.name], learn.groups)
        splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(kernel_ridge.FOLDS)]
        by_alpha = [cross_val_predict(Ridge(alpha), features, outputs, cv=splits).reshape(outputs.shape) for alpha in kernel_ridge.ALPHAS]
        parts.append(min(by_alpha, key=lambda predictions: float(((predictions - outputs) ** 2).sum())))
    return np.concatenate(parts, 1)


def measured_apart(images: int) -> dict[str, Any]:
    """Return `measure` of a process of its own, so that its peak memory is its own."""
    done = subprocess.run([sys.executable, __file__, "--json", "--images", str(images)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)["results"][str(images)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 4000, 16_000, 120_000], help="numbers of labelled images")
    parser.add_argument("--quick", action="store_true", help="1,000 and 4,000 images")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    sizes = [1000, 4000] if args.quick else args.images
    take: Callable[[int], dict[str, Any]] = measure if len(sizes) == 1 else measured_apart
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    for images in sizes:
        results[str(images)] = take(images)
        print(f"{images} images: {results[str(images)]['seconds']['all']} s", file=sys.stderr)
    report("mapper", results, args.json)


if __name__ == "__main__":
    main()
