"""Projects the cost of a hundred million to ten billion images from committed measurements, and writes docs/scale.md.

    python benchmarks/projection.py docs/scale.md

Measures nothing: it reads the committed results of pipeline.py, decode.py, storage_requests.py, listing.py, dedup.py, embeddings.py,
scale.py, planning.py and kept_columns.py. ASSUMED holds what was assumed and not measured; the page states it too.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SIZES = {"100 million": 10**8, "1 billion": 10**9, "10 billion": 10**10}
NIGHT_HOURS = 8
VCPUS = 16  # of a machine without GPUs
ASSUMED = {  # list prices of AWS in us-east-1, in dollars
    "1,000 GET requests": 0.0004,
    "1,000 PUT or LIST requests": 0.005,
    "a GB in S3 for a month": 0.023,
    "an hour of a c7i.4xlarge (16 vCPUs, 32 GB)": 0.714,
}
GET, PUT, STORED, MACHINE = ASSUMED.values()
CARDS = {"A10G": 70, "L4": 121, "A100": 312, "H100": 989}  # bf16 matrix products, dense, in 1e12 operations a second: data sheets
L14_GFLOPS = 162  # of an image in ViT-L/14, counted by PyTorch
SHARE_OF_PEAK = 0.5  # that a tower is assumed to reach
MAX_COMPARED = 2048 * 2**21  # images, listed or annotated before, in partitions of the usual size (pipeline/planning/shuffle.py)
REQUESTS_A_SECOND = 5500  # GETs for one prefix beyond which S3 answers SlowDown (its documentation)


def results(benchmark: str) -> dict[str, Any]:
    """Return a benchmark's results of the machine that scale.py was run on (with several, the last by name)."""
    machine = sorted(RESULTS.glob("scale-*.json"))[-1].name.removeprefix("scale-")
    return json.loads((RESULTS / f"{benchmark}-{machine}").read_text())


@dataclass(frozen=True)
class Costs:
    """The cost of one image: core seconds, requests, bytes."""

    small_tower: float
    vit: float
    decode: float
    decode_large: float
    job: float
    plan_seconds: float
    plan_bytes: float
    cluster_seconds: float  # of planning by the cluster
    gets: dict[str, float]
    puts: dict[str, float]
    row_bytes: float

    @classmethod
    def measured(cls, cores: int = 2) -> "Costs":
        """Compute the costs from the committed results of a machine with `cores` cores."""
        tiny, vit = (results(f"pipeline-{tower}")["contenders"]["ugrie"]["milliseconds_an_image"] for tower in ("ugrie-tiny", "vit-b-32"))
        decode, scale, requests = results("decode"), results("scale"), results("storage-requests")
        (_, fewer), (_, more) = sorted(scale["runs"].items(), key=lambda run: int(run[0]))[-2:]
        planning = scale["planning"]["all new"]
        largest = list(results("planning")["cluster"].values())[-1]
        gets, puts = {}, {}
        for kind in ("objects", "shards"):
            counts = requests[kind]["of_1000_images_more"]
            read = sum(count for name, count in counts.items() if name.startswith(("GET ", "HEAD ")) and not name.endswith(" listing"))
            gets[kind], puts[kind] = read / 1000, (sum(counts.values()) - read) / 1000
        return cls(
            small_tower=tiny * cores / 1000,
            vit=vit * cores / 1000,
            decode=decode["as published"]["milliseconds"]["ours"] / 1000,
            decode_large=decode["12 megapixels"]["milliseconds"]["ours"] / 1000,
            job=sum(more["milliseconds_a_row"].values()) * cores / 1000,
            plan_seconds=planning["cpu_seconds"] / planning["listed"],
            plan_bytes=(planning["peak_mib"] - fewer["memory_mib"]["driver"]) * 2**20 / planning["listed"],
            cluster_seconds=largest["all new"]["all_cpu_seconds"] / largest["all new"]["listed"],
            gets=gets,
            puts=puts,
            row_bytes=results("embeddings")["layouts"]["none"]["bytes a row"],
        )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Format a number with two significant digits."""
    if value >= 100:
        digits = len(str(int(value))) - 2
        return f"{round(value, -digits):,.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def hours(core_seconds: float) -> str:
    return number(core_seconds / 3600)


def machines(core_seconds: float) -> str:
    return number(max(1, -(-core_seconds // (3600 * NIGHT_HOURS * VCPUS))))


def dollars(core_seconds: float) -> str:
    return f"${number(core_seconds / 3600 / VCPUS * MACHINE)}"


def row(name: str, value: Any, *units: Any) -> list[str]:
    """Return a line of a table: the value for each of SIZES."""
    return [name, *(value(size, *units) for size in SIZES.values())]


def of_towers(costs: Costs) -> str:
    lines = []
    for name, seconds in (("`ugrie-tiny`", costs.small_tower), ("ViT-B/32 in fp32", costs.vit)):
        lines += [
            row(f"{name}: core hours", lambda n, s: hours(n * s), seconds),
            row(f"{name}: machines of {VCPUS} vCPUs to finish in {NIGHT_HOURS} h", lambda n, s: machines(n * s), seconds),
            row(f"{name}: dollars", lambda n, s: dollars(n * s), seconds),
        ]
    return table(["without GPUs", *SIZES], lines)


def of_feeding(costs: Costs) -> str:
    lines = []
    for name, seconds in (("photos of web size", costs.decode), ("photos of 12 megapixels", costs.decode_large)):
        lines += [
            row(f"{name}: core hours for decoding and cropping", lambda n, s: hours(n * s), seconds),
            [f"{name}: cores per 1,000 images/s of a GPU", *[number(1000 * seconds)] * len(SIZES)],
        ]
    lines.append(row("UGRIE's and Ray's overhead: core hours", lambda n: hours(n * costs.job)))
    lines.append(["UGRIE's and Ray's overhead: cores per 1,000 images/s", *[number(1000 * costs.job)] * len(SIZES)])
    return table(["around the model", *SIZES], lines)


def of_cards(costs: Costs) -> str:
    lines = []
    for card, peak in CARDS.items():
        rate = SHARE_OF_PEAK * peak * 1000 / L14_GFLOPS
        cores = (rate * (costs.job + decode) for decode in (costs.decode, costs.decode_large))
        lines.append([card, str(peak), number(rate), *(number(max(1.0, value)) for value in cores)])
    return table(["card", "1e12 operations a second", "images/s", "CPUs, photos of web size", "CPUs, 12 megapixels"], lines)


def of_storage(costs: Costs) -> str:
    lines = []
    for kind, name in (("objects", "images as single objects"), ("shards", "images in `.tar` shards of 1,024")):
        gets, puts = costs.gets[kind], costs.puts[kind]
        lines += [
            row(f"{name}: GET and HEAD", lambda n, g: number(n * g), gets),
            row(f"{name}: PUT, POST, LIST, DELETE", lambda n, p: number(n * p), puts),
            row(f"{name}: dollars", lambda n, g, p: f"${number(n * (g * GET + p * PUT) / 1000)}", gets, puts),
        ]
    lines.append(row("the table with four schemes: GB", lambda n: number(n * costs.row_bytes / 1e9)))
    lines.append(row("the table with four schemes: dollars a month", lambda n: f"${number(n * costs.row_bytes / 1e9 * STORED)}"))
    return table(["in S3", *SIZES], lines)


def of_planning(costs: Costs) -> str:
    lines = [
        row("planning by the cluster: core hours", lambda n: number(n * costs.cluster_seconds / 3600)),
        row("planning by the driver alone: core hours", lambda n: number(n * costs.plan_seconds / 3600)),
        row("planning by the driver alone: its memory, GB", lambda n: number(n * costs.plan_bytes / 1e9)),
        row("blocks of 256", lambda n: number(n / 256)),
        row("files of the table, of a million rows each", lambda n: number(n / 2**20)),
    ]
    return table(["in one run", *SIZES], lines)


def largest_worker() -> float:
    """Return the gigabytes of the largest worker while the cluster planned."""
    cases = [each for sizes in results("planning")["cluster"].values() for each in sizes.values()]
    return max(each["memory_mib"]["worker"] for each in cases) * 2**20 / 1e9


def of_cluster() -> str:
    lines = [
        [
            f"{int(rows):,} by the {by}, {case}",
            f"{each['peak_mib']:,}",
            f"{each['memory_mib']['driver']:,.0f}",
            f"{each['memory_mib']['all']:,.0f}",
            f"{each['all_cpu_seconds']:,.0f}",
            f"{each['seconds']:,.0f}",
        ]
        for by, sizes in results("planning").items()
        for rows, cases in sizes.items()
        for case, each in cases.items()
    ]
    return table(["images listed", "driver, peak MiB", "of it unique", "all processes, MiB", "core seconds of all", "seconds"], lines)


def of_runs(scale: dict[str, Any]) -> str:
    runs, growth = scale["runs"], scale["growth"]
    lines = [
        [f"{part}, MiB", *(f"{run['memory_mib'][key]:,.0f}" for run in runs.values()), f"{growth['memory_mib'][key]:.2f}"]
        for part, key in {
            "the driver": "driver",
            "the driver, while writing the report": "report",
            "the largest worker": "worker",
            "all workers": "workers",
            "Ray's own processes": "ray",
            "object store": "object_store",
        }.items()
    ]
    lines += [
        [
            f"{part}, ms a row",
            *(f"{run['milliseconds_a_row'][key]:.3f}" for run in runs.values()),
            f"{growth['milliseconds_a_row'][key]:.2f}",
        ]
        for part, key in {"planning": "plan", "load, annotate, write": "annotate", "verify and commit": "commit"}.items()
    ]
    lines.append(["files of the table", *(str(run["files"]["count"]) for run in runs.values()), ""])
    header = ["rows", *(f"{int(rows):,}" for rows in runs), "last ÷ the one before"]
    return table(header, lines)


def of_kept_columns() -> str:
    kept = results("kept-columns")
    lines = []
    for case, name in {"all new": "all rows are new", "all known": "the next night, all are known"}.items():
        without, found, added = kept[case]["without"], kept[case]["with"], kept[case]["added_to_a_row"]
        lines.append(
            [
                name,
                *(f"{each['cpu_seconds']:.0f}" for each in (without, found)),
                f"{kept[case]['times']['cpu_seconds']:.2f}",
                number(added["cpu_microseconds"]),
                *(f"{each['peak_mib']:,}" for each in (without, found)),
                number(added["peak_bytes"]),
            ]
        )
    header = ["planning", "core seconds without", "with", "times", "µs a row more", "peak MiB without", "with", "bytes a row more"]
    return f"""The same Parquet table of {kept["rows"]:,} rows without and with three kept columns, a number, a text and a time
(`python benchmarks/kept_columns.py`; into an output of its own). The values themselves are not held in memory: they go into the manifest.

{table(header, lines)}"""


def of_listing() -> str:
    """Return sentences about a flat prefix that was listed page by page, and in ranges."""
    measured = results("listing")
    found = {float(delay.removesuffix(" s")): times for delay, times in measured["hashes"].items()}
    delay = max(found)
    (plain, ours), far, near = (found[delay][f"UGRIE, {how}"] for how in ("page by page", "in ranges")), found[delay], found[0.0]
    cpu = 1000 * ours["cpu_seconds"] / ours["requests"]
    return f"""  A flat prefix of {measured["keys"]:,} keys in SeaweedFS took {ours["requests"]:,} requests so,
  page by page {plain["requests"]:,}. With {1000 * delay:.0f} ms before each request that was {ours["seconds"]:.0f} s
  instead of {plain["seconds"]:.0f} ({far["times_as_fast"]:.1f} times as fast), without it {near["times_as_fast"]:.1f} times as fast
  (`benchmarks/listing.py`). Server, client and the proxy that counts and delays shared two cores, and took
  {cpu:.0f} ms of them for a page: with the server elsewhere, and cores to spare, ranges should gain more, which is not measured."""


def page() -> str:
    costs, scale = Costs.measured(), results("scale")
    assumed = "\n".join(f"- {item}: ${price:g}" for item, price in ASSUMED.items())
    served = {parts: number(found["images_a_second_with_a_core_each"]) for parts, found in results("dedup").items()}
    kept = results("kept-columns")["all new"]["added_to_a_row"]["peak_bytes"]
    largest = 16e9 / (costs.plan_bytes + kept)
    return f"""# Scale

`benchmarks/projection.py` writes this page from the results of `benchmarks/pipeline.py`, `decode.py`, `storage_requests.py`,
`listing.py`, `dedup.py`, `embeddings.py`, `scale.py`, `planning.py` and `kept_columns.py` on a machine of two cores without a GPU
(`benchmarks/results/`). Larger numbers are multiples of these: nobody has run UGRIE over ten billion images, and no result of a GPU has
been recorded yet.

## Memory and cost by number of rows

Whole runs, from a table of URIs to the committed record. Only images and model are replaced by stubs, so that UGRIE's own work and Ray's
remain (`python benchmarks/scale.py`; two cores; memory is unique to each process, the highest of two samples a second):

{of_runs(scale)}

Planning a run, with as many images already annotated in the output as the input lists (`python benchmarks/planning.py`; the same two
cores, beside other work, so that seconds are an upper bound). Memory is the largest that the system counts of the driver, its libraries
among it, and what is unique to processes, as above:

{of_cluster()}

{of_kept_columns()}

## Cost of large runs

{of_towers(costs)}

These include the whole job: fetching, decoding, tower, BART and writing, on the cores that were measured. With GPUs the tower runs on
them, and the CPUs do this:

{of_feeding(costs)}

So many CPUs keep a card busy with ViT-L/14 in fp16 or bf16, if its tower reaches half of what the card's data sheet says. That is an
assumption (`benchmarks/gpu.py` measures it where there is a GPU). Smaller towers need more CPUs for each card. A run on GPUs that wait
says how many CPUs it lacks, and so does `ugrie plan` on a machine with a GPU.

{of_cards(costs)}

{of_storage(costs)}

{of_planning(costs)}

Assumed, not measured:

{assumed}

## Where the limits are

- **Planning a run** of up to ten million images, listed or annotated before, is one process: {number(costs.plan_bytes)} bytes and
  {number(1e6 * costs.plan_seconds)} µs for each image listed, with as many already annotated. Above that the cluster plans it
  (`--planning`). Tasks list the input, and write its parts to the output's work folder, as a Parquet table of URIs and versions. Ray
  Data's shuffle writes 24 bytes, packed, for each image listed or annotated before to the nodes' temporary disks. The driver holds some
  hundred bytes for each part of up to 262,144 images. A task compares some two million images at a time, and the largest process above
  took {largest_worker():.1f} GB; beyond {number(MAX_COMPARED)} images, listed or annotated before, they are more at a time. A table is
  divided by its files, and a large Parquet file by its row groups, but a large file of text is listed by one task.
- **`--keep-columns` and `--limit`** need the driver for planning: with kept columns, a driver of 16 GB plans {number(largest)} rows.
  Divide more by night or by prefix, each with its own `--input`.
- **`ugrie plan`**, the dry run, lists and compares in its own process, as the driver does. Of more than some ten million images, give it a
  part of the input, or `--limit`.
- **S3** serves some {REQUESTS_A_SECOND:,} GETs a second for a prefix, which limits single objects under one prefix to as many
  images/s; with shards the limit is {number(REQUESTS_A_SECOND / costs.gets["shards"])} images/s.
- **Deduplication** is one actor for each 64 loaders, at most eight, each with a range of the hashes. With a core for each, one serves
  {served["1"]} images/s, four {served["4"]}, eight {served["8"]} (computed from their processes' time, `benchmarks/dedup.py`).
  Beyond that, use several runs with an input each.
- **Listing** takes a request for a thousand keys, 32 of them at a time: folders side by side, and in S3 what is left of a long one in
  ranges of keys, which are found by asking for what is after a key that is guessed from those before.
{of_listing()}
- **Memory of a worker** does not depend on the number of images. A loader holds a block of crops (38 MB) and the bytes of some tens of
  images, of some hundreds in a run with hundreds of loaders: twice 32 MiB, and what is fetched ahead. A worker that merges blocks into
  a file of the table keeps blocks and file on its disk until the file is stored; the file has at most a million rows or
  256 MiB. The data waiting in the object store is bounded (see [tuning](tuning.md)).
- **Memory of the driver while images are annotated** does not grow with the number of blocks, apart from some tens of bytes for each: their
  numbers are handed out by tasks, some hundreds ahead of the work, and of blocks that are done nothing is kept
  (`pipeline/stages/block_memory.py`). Of Ray's own processes the control service keeps a record of each task for the dashboard, some 4 kB,
  up to Ray's limit of 100,000 tasks. A Ray that a run starts on its machine has no dashboard, and keeps none.
- **The commit** reads every block once and writes every file once, as many files at a time as there are pairs of CPUs.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="the Markdown file to write")
    parser.parse_args().page.write_text(page())


if __name__ == "__main__":
    main()
