"""Profiles the whole job: CPU time an image by process, and within the processes by part of the code.

    python benchmarks/hotspots.py --photos DIR      # about ten minutes

Runs jobs/annotate.py over a smaller and a larger folder. A process's cost of one more image is the difference of its CPU time over
the whole run, divided by the difference in images. py-spy samples the larger run's annotator and loaders fifty times a second while
blocks are written; waiting threads are left out, and a process's time is divided in proportion to its samples. py-spy itself uses CPU time,
so compare the parts with each other, not with other benchmarks. Results are medians over the rounds.

Needs UGRIE's `bench` extra and permission to trace processes (root, or `kernel.yama.ptrace_scope=0`).
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from measure import report
from photos import corpus, jpegs

from pipeline.stages.annotate import Annotator
from pipeline.stages.dedup import DedupActor
from pipeline.stages.tracker import TrackerActor

ROOT = Path(__file__).parents[1]
DRIVER, ANNOTATOR, LOADER = "driver", "annotator", "loaders and writers"
ACTORS, RAY = "deduplication and block tracker", "Ray's own processes"
TITLES = {  # how the titles of the job's processes begin
    f"ray::MapWorker(MapBatches({Annotator.__name__}": ANNOTATOR,
    "ray::MapBatches(": LOADER,
    f"ray::{DedupActor.__name__}": ACTORS,
    f"ray::{TrackerActor.__name__}": ACTORS,
}
SAMPLED = (ANNOTATOR, LOADER)
# A thread whose innermost call is one of these is waiting for a lock, for work or for the device.
WAITS = ("(threading.py", "_worker (concurrent/futures/thread.py", "(selectors.py", "main_loop (ray/", f"{Annotator.__name__}.__call__ (")
# The innermost frame in one of these files decides a sample's part. A sample without any is Ray's.
PARTS = {
    "the tower": ("ugrie/vision/encoder.py", "ugrie/vision/stage_tower.py"),
    "mapper and template": ("ugrie/model/model.py", "ugrie/model/mapper.py", "ugrie/model/slots.py"),
    "decoding and cropping": ("pipeline/images/decode.py", "ugrie/vision/preprocess.py"),
    "fetching": (
        "pipeline/images/coalesce.py",
        "pipeline/images/fetch.py",
        "pipeline/images/parquet_reader.py",
        "pipeline/images/prefetch.py",
        "pipeline/images/row_reader.py",
        "pipeline/storage/client.py",
        "pipeline/storage/filesystem.py",
        "pipeline/storage/parallel.py",
        "pipeline/storage/retry.py",
        "pipeline/storage/ssrf.py",
    ),
    "tables, hashes, claims, files": ("pipeline/",),
}
OF_RAY = "Ray Data's and Ray's"


def part_of(stack: str) -> str | None:
    """Return the part of a stack (frames separated by `;`, the outermost first); None if the thread is waiting."""
    frames = stack.split(";")
    if any(wait in frames[-1] for wait in WAITS):
        return None
    for frame in reversed(frames):
        for part, files in PARTS.items():
            if any(file in frame for file in files):
                return part
    return OF_RAY


class Run:
    """One run of the job whose processes are measured."""

    def __init__(self, source: Path, output: Path):
        command = [sys.executable, str(ROOT / "jobs" / "annotate.py"), "--input", str(source), "--output", str(output)]
        self.blocks = output / "_work" / "hotspots" / "rows"
        self.job = subprocess.Popen([*command, "--run-id", "hotspots"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.kinds: dict[int, str] = {self.job.pid: DRIVER}
        self.seconds: dict[int, float] = {}
        self.spies: dict[int, tuple[subprocess.Popen, Path]] = {}

    def watch(self, samples_folder: Path | None) -> tuple[dict[str, float], dict[str, Counter[str]]]:
        """Wait for the run to end. Returns CPU seconds by kind of process, and samples of the sampled kinds by part of the code.

        py-spy writes its samples to the folder `samples_folder`; without it nothing is sampled.
        """
        root = psutil.Process(self.job.pid)
        while self.job.poll() is None:
            with suppress(psutil.Error):  # the job has just ended
                for process in [root, *root.children(recursive=True)]:
                    self._record_times(process)
            if samples_folder is not None and any(self.blocks.glob("block-*.parquet")):
                self._sample(samples_folder)
            time.sleep(0.1)
        if self.job.returncode != 0:
            raise SystemExit(f"the job ended with {self.job.returncode}: {' '.join(map(str, self.job.args))}")  # type: ignore[arg-type]
        seconds: Counter[str] = Counter()
        for pid, spent in self.seconds.items():
            seconds[self.kinds[pid]] += spent  # type: ignore[assignment]  # Counter's type stubs want int
        samples: dict[str, Counter[str]] = {kind: Counter() for kind in SAMPLED}
        for pid, (spy, file) in self.spies.items():
            spy.wait()
            for line in file.read_text().splitlines() if file.exists() else []:
                stack, _, count = line.rpartition(" ")
                part = part_of(stack)
                if part is not None:
                    samples[self.kinds[pid]][part] += int(count)
        return dict(seconds), samples

    def _record_times(self, process: psutil.Process) -> None:
        """Record a process's kind and its CPU time so far."""
        try:
            title, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:  # the process has just ended
            return
        kind = next((kind for start, kind in TITLES.items() if title.startswith(start)), None)
        if kind is not None or process.pid not in self.kinds:
            self.kinds[process.pid] = kind or RAY
        self.seconds[process.pid] = times.user + times.system

    def _sample(self, folder: Path) -> None:
        """Start py-spy on each process of the sampled kinds that has none yet."""
        for pid, kind in self.kinds.items():
            if kind in SAMPLED and pid not in self.spies:
                file = folder / f"{pid}.txt"
                command = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(pid), "--format", "raw"]
                command += ["--rate", "50", "--duration", "3600", "--output", str(file)]
                self.spies[pid] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), file


def measure(args: argparse.Namespace, folder: Path) -> dict:
    sources = jpegs(args.photos, args.megapixels)
    sizes = {"smaller": args.smaller, "larger": args.larger}
    for name, images in sizes.items():
        corpus(sources, images, folder / name)
    costs: list[dict[str, float]] = []
    samples: dict[str, Counter[str]] = {kind: Counter() for kind in SAMPLED}
    for turn in range(args.repeats):
        spent = {}
        for name in sizes:
            samples_folder = folder / f"samples-{turn}" if name == "larger" else None
            if samples_folder is not None:
                samples_folder.mkdir()
            spent[name], seen = Run(folder / name, folder / f"{name}-{turn}").watch(samples_folder)
            for kind, counts in seen.items():
                samples[kind].update(counts)
        more = args.larger - args.smaller
        kinds = (DRIVER, *SAMPLED, ACTORS, RAY)
        costs.append({kind: 1000 * (spent["larger"].get(kind, 0) - spent["smaller"].get(kind, 0)) / more for kind in kinds})
        print(f"{turn + 1}. {costs[-1]}", file=sys.stderr, flush=True)
    medians = {kind: statistics.median(cost[kind] for cost in costs) for kind in costs[0]}
    return {
        "images": sizes,
        "megapixels": args.megapixels or "as published",
        "repeats": args.repeats,
        "versions": {name: version(name) for name in ("ray", "torch", "pillow", "py-spy")},
        "core_milliseconds_an_image": {kind: round(cost, 2) for kind, cost in medians.items()},
        "of_these": {
            kind: {part: round(medians[kind] * count / counts.total(), 2) for part, count in counts.most_common()}
            for kind, counts in samples.items()
        },
        "samples": {kind: counts.total() for kind, counts in samples.items()},
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--photos", type=Path, required=True, help="a folder of JPEG photos")
    arguments.add_argument("--megapixels", type=float, help="enlarge the photos to this size")
    arguments.add_argument("--smaller", type=int, default=256, help="images of the smaller folder")
    arguments.add_argument("--larger", type=int, default=8192, help="images of the larger folder")
    arguments.add_argument("--repeats", type=int, default=3, help="rounds")
    arguments.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="ugrie-bench-") as folder:
        results = measure(args, Path(folder))
    name = "hotspots" if args.megapixels is None else f"hotspots-{args.megapixels:g}mp"
    report(name, results, args.json)


if __name__ == "__main__":
    main()
