"""Compares annotating from kept embeddings with annotating from pixels: the same job and model, from start to committed table.

    python benchmarks/reannotate.py --photos DIR                      # ugrie-tiny
    python benchmarks/reannotate.py --photos DIR --tower ViT-B-32     # a tower as large as CLIP's smallest (benchmarks/student.py)

Each round annotates a smaller and a larger folder of photos with --keep-embeddings. Then it annotates a smaller and a larger table of
these embeddings, repeated under other ids as often as needed, with a copy of the model that counts as a new version. The cost of an
image is the difference in seconds divided by the difference in images, as in benchmarks/pipeline.py. Both must write the same
sentence for every photo.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import report, seconds_of
from photos import corpus, jpegs
from student import checkpoint_of

from ugrie.model import checkpoint

JOB = str(Path(__file__).parents[1] / "jobs" / "annotate.py")
GROUP_ROWS = 2**14  # of a row group, as in UGRIE's own files


def repeated(output: Path, rows: int, folder: Path) -> Path:
    """Write an output of `rows` rows that repeats those of another output with new ids and URIs. Returns its folder."""
    (path,) = output.glob("runs/*.json")
    record = json.loads(path.read_text())
    (file,) = record["files"]
    table = pq.read_table(output / file, partitioning=None)
    times = -(-rows // len(table))
    whole = pa.concat_tables([table] * times).slice(0, rows).combine_chunks()
    ids = pa.array(np.arange(1, rows + 1, dtype=np.int64))
    uris = pa.array([f"{uri}?{i}" for i, uri in enumerate(whole["uri"].to_pylist())])
    for name, values in {"image_id": ids, "uri": uris}.items():
        place = whole.schema.get_field_index(name)
        whole = whole.set_column(place, whole.schema.field(place), values)
    (folder / file).parent.mkdir(parents=True)
    (folder / "runs").mkdir()
    pq.write_table(whole, folder / file, compression="zstd", row_group_size=GROUP_ROWS)
    (folder / "runs" / path.name).write_text(json.dumps(record | {"counts": record["counts"] | {"rows": rows, "listed": rows}}))
    return folder


def sentences(output: Path, run_id: str | None = None) -> dict[str, str]:
    """Return the sentence of each photo by its name."""
    files = [file for path in output.glob(f"runs/{run_id or '*'}.json") for file in json.loads(path.read_text())["files"]]
    tables = [pq.read_table(output / file, columns=["uri", "sentence"], partitioning=None) for file in files]
    rows = pa.concat_tables(tables)
    names = (Path(uri.partition("?")[0]).name for uri in rows["uri"].to_pylist())
    return dict(zip(names, rows["sentence"].to_pylist(), strict=True))


def measure(args: argparse.Namespace, folder: Path) -> dict:
    model, newer = folder / "model", folder / "newer"
    if args.tower:
        checkpoint_of(args.tower, args.photos, model)
    else:
        shutil.copytree(checkpoint.find("ugrie-tiny"), model)
    shutil.copytree(model, newer)
    (newer / "config.json").write_text((model / "config.json").read_text() + "\n")  # changes the digest, and so the version
    sources = jpegs(args.photos, None)
    images, rows = dict(zip(("smaller", "larger"), args.images, strict=True)), dict(zip(("smaller", "larger"), args.rows, strict=True))
    for name, count in images.items():
        corpus(sources, count, folder / name)
    ways: dict[str, list[dict[str, float]]] = {"from pixels": [], "from embeddings": []}
    for turn in range(args.repeats):
        took = {}
        for name in images:
            keeping = [JOB, "--keep-embeddings"]
            took[name] = seconds_of(keeping, str(folder / name), folder / f"pixels-{turn}-{name}", str(model), {})
        ways["from pixels"].append(took)
        took = {}
        for name, count in rows.items():
            kept = repeated(folder / f"pixels-{turn}-larger", count, folder / f"kept-{turn}-{name}")
            again = [JOB, "--from-embeddings", "--run-id", "again"]
            took[name] = seconds_of(again, str(kept), kept, str(newer), {})
        ways["from embeddings"].append(took)
        print(f"{turn + 1}. {ways['from pixels'][-1]} {took}", file=sys.stderr, flush=True)
    counts = {"from pixels": images, "from embeddings": rows}
    cost = {
        way: [1000 * (took["larger"] - took["smaller"]) / (counts[way]["larger"] - counts[way]["smaller"]) for took in turns]
        for way, turns in ways.items()
    }
    first, again = sentences(folder / "pixels-0-larger"), sentences(folder / "kept-0-larger", "again")
    pairs = list(zip(*cost.values(), strict=True))
    return {
        "model": args.tower or "ugrie-tiny",
        "images": counts,
        "repeats": args.repeats,
        "milliseconds_an_image": {way: round(statistics.median(each), 3) for way, each in cost.items()},
        "all_milliseconds": {way: [round(value, 3) for value in each] for way, each in cost.items()},
        "seconds": ways,
        "times_faster_at_least": round(  # counts the start-up against the larger run: start-up times differ by seconds
            statistics.median(
                each / (1000 * took["larger"] / rows["larger"])
                for each, took in zip(cost["from pixels"], ways["from embeddings"], strict=True)
            ),
            1,
        ),
        "times_faster": round(statistics.median(pixels / embeddings for pixels, embeddings in pairs), 1),
        "photos_compared": len(again),
        "photos_with_another_sentence": sum(first[name] != sentence for name, sentence in again.items()),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--photos", type=Path, required=True, help="a folder of JPEG photos")
    arguments.add_argument("--tower", choices=["ViT-B-32", "ViT-L-14"], help="a tower of random weights instead of ugrie-tiny")
    arguments.add_argument("--images", type=int, nargs=2, default=[256, 4096], help="photos in the smaller and in the larger folder")
    arguments.add_argument("--rows", type=int, nargs=2, default=[16_384, 524_288], help="rows of the smaller and of the larger table")
    arguments.add_argument("--repeats", type=int, default=3, help="rounds")
    arguments.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="ugrie-bench-") as folder:
        results = measure(args, Path(folder))
    report("-".join(["reannotate", (args.tower or "ugrie-tiny").lower()]), results, args.json)


if __name__ == "__main__":
    main()
