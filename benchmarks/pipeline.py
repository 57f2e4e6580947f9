"""Compares the cost of an image from file to table in UGRIE and in the alternatives, on the same photos.

    python benchmarks/pipeline.py --photos DIR                      # ugrie-tiny, photos as they are, from the local disk
    python benchmarks/pipeline.py --photos DIR --s3                 # from SeaweedFS, a real S3 server on this machine
    python benchmarks/pipeline.py --photos DIR --megapixels 12      # photos enlarged
    python benchmarks/pipeline.py --photos DIR --tower ViT-B-32     # a tower as large as CLIP's smallest (benchmarks/student.py)

The contenders are separate programs (benchmarks/contenders): a bare loop over a DataLoader, Daft with the model in a batch UDF, Daft
with the tower run as UGRIE runs it, and Ray Data as its documentation shows it, where BART generates. In each round every program
annotates a smaller and a larger folder. The cost of an image is the difference in seconds, from the start of the program to its end,
divided by the difference in images; the rest is the start-up time. Ratios are computed within a round; results are medians over the rounds.

Photos are repeated as often as needed, with a comment in each JPEG so that no two have the same bytes: UGRIE annotates equal bytes once.
Needs UGRIE's `bench` extra in a separate environment, because Daft needs an older pyarrow than UGRIE's newest.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pyarrow.dataset as ds
from measure import report, seconds_of
from photos import corpus, jpegs
from student import checkpoint_of

from benchmarks.servers.seaweed import seaweed

ROOT = Path(__file__).parents[1]
CONTENDERS = ROOT / "benchmarks" / "contenders"
PROGRAMS = {
    "ugrie": [str(ROOT / "jobs" / "annotate.py")],
    "bare loop": [str(CONTENDERS / "bare.py")],
    "daft": [str(CONTENDERS / "with_daft.py")],
    "daft, tower as ugrie's": [str(CONTENDERS / "with_daft.py"), "--tuned"],
    "ray data by hand": [str(CONTENDERS / "by_hand.py")],
}


@contextmanager
def stored(folder: Path, in_s3: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """Provide the corpora on disk or in S3: yield the path or URI of their parent, and the environment variables to read it."""
    if not in_s3:
        yield str(folder), {}
        return
    with tempfile.TemporaryDirectory() as server, seaweed(Path(server)) as s3:
        for place in folder.iterdir():
            s3.fs.put(str(place), f"{s3.bucket}/{place.name}", recursive=True)
        known = {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret, "AWS_ENDPOINT_URL": s3.endpoint}
        yield f"s3://{s3.bucket}", known | {"AWS_DEFAULT_REGION": "us-east-1"}


def rows(output: Path) -> dict[str, dict]:
    """Return the rows of an output by image name."""
    folder = output / "annotations"
    table = ds.dataset(folder if folder.is_dir() else output, format="parquet", partitioning=None).to_table()
    return {Path(row["uri"]).name: row for row in table.to_pylist()}


def unlike(ours: dict[str, dict], theirs: dict[str, dict]) -> int:
    """Count the images with a different sentence. A sentence that is the beginning of ours is equal: BART may end it early."""
    assert ours.keys() == theirs.keys()
    return sum(not ours[name]["sentence"].startswith(theirs[name]["sentence"].rstrip(".")) for name in ours)


def measure(args: argparse.Namespace, folder: Path) -> dict:
    model = "ugrie-tiny"
    if args.tower:
        model = str(folder / "checkpoint")
        checkpoint_of(args.tower, args.photos, folder / "checkpoint")
    (folder / "corpora").mkdir()
    sources = jpegs(args.photos, args.megapixels)
    sizes = {"smaller": args.smaller, "larger": args.larger}
    for name, images in sizes.items():
        corpus(sources, images, folder / "corpora" / name)
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in args.contender or PROGRAMS}
    written: dict[str, dict[str, dict]] = {}
    with stored(folder / "corpora", args.s3) as (place, environment):
        for turn in range(args.repeats):
            for name in seconds:
                took = {}
                for size in sizes:
                    output = folder / f"{name}-{turn}-{size}"
                    took[size] = seconds_of(PROGRAMS[name], f"{place}/{size}", output, model, environment)
                print(f"{turn + 1}. {name}: {took}", file=sys.stderr, flush=True)
                seconds[name].append(took)
                written.setdefault(name, rows(output))
    more = args.larger - args.smaller
    cost = {name: [1000 * (took["larger"] - took["smaller"]) / more for took in turns] for name, turns in seconds.items()}
    start = {
        name: [took["smaller"] - args.smaller * each / 1000 for took, each in zip(seconds[name], cost[name], strict=True)] for name in cost
    }
    return {
        "model": args.tower or "ugrie-tiny",
        "from": "SeaweedFS" if args.s3 else "local disk",
        "megapixels": args.megapixels or "as published",
        "images": sizes,
        "repeats": args.repeats,
        "versions": {name: version(name) for name in ("ray", "daft", "torch", "pyarrow", "transformers", "open_clip_torch", "pillow")},
        "contenders": {
            name: {
                "milliseconds_an_image": round(statistics.median(cost[name]), 2),
                "all_milliseconds": [round(each, 2) for each in cost[name]],
                "start_seconds": round(statistics.median(start[name]), 1),
                "ugrie_is_times": round(statistics.median(a / b for a, b in zip(cost["ugrie"], cost[name], strict=True)), 3),
                "images_unlike_ugries": unlike(written["ugrie"], written[name]),
            }
            for name in seconds
        },
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--photos", type=Path, required=True, help="a folder of JPEG photos")
    arguments.add_argument("--tower", choices=["ViT-B-32", "ViT-L-14"], help="a tower of random weights instead of ugrie-tiny")
    arguments.add_argument("--megapixels", type=float, help="enlarge the photos to this many million pixels")
    arguments.add_argument("--s3", action="store_true", help="read from SeaweedFS")
    arguments.add_argument("--smaller", type=int, default=256, help="images of the smaller folder")
    arguments.add_argument("--larger", type=int, default=2048, help="images of the larger folder")
    arguments.add_argument(
        "--contender",
        choices=list(PROGRAMS),
        action="append",
        help="a program to measure, all by default; repeat it for several, ugrie first",
    )
    arguments.add_argument("--repeats", type=int, default=5, help="rounds")
    arguments.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = arguments.parse_args()
    with ExitStack() as stack:
        results = measure(args, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ugrie-bench-"))))
    parts = [(args.tower or "ugrie-tiny").lower(), *(["s3"] if args.s3 else []), *([f"{args.megapixels:g}mp"] if args.megapixels else [])]
    report("-".join(["pipeline", *parts]), results, args.json)


if __name__ == "__main__":
    main()
