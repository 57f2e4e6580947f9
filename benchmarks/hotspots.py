"""Where an image's time goes in the whole job: cores' time by process, and within the processes by what they are at.

    python benchmarks/hotspots.py --photos DIR      # about ten minutes

Runs of jobs/annotate.py over a smaller and a larger folder: what an image more costs each process is the difference of the processes' CPU
time, from their first moment to their last, by the difference in images. py-spy looks at the larger run's annotator and loaders fifty
times a second while blocks come; threads that wait are left out, and a process's time is split as its samples are. py-spy itself takes a
share of the machine: compare the parts with each other, not with other benchmarks. Medians of the rounds.

Needs UGRIE's `bench` extra, and to be allowed to look into processes (root, or `kernel.yama.ptrace_scope=0`).
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

ROOT = Path(__file__).parents[1]
DRIVER, ANNOTATOR, LOADER = "driver", "annotator", "loaders and writers"
REPOSTS, RAY = "reposts and the board", "Ray's own processes"
TITLES = {"ray::MapWorker(MapBatches(Annotator": ANNOTATOR, "ray::MapBatches(": LOADER, "ray::Ledger": REPOSTS, "ray::Log": REPOSTS}
LOOKED_AT = (ANNOTATOR, LOADER)
# A thread whose innermost call is one of these waits: for a lock, for work, for the device.
WAITS = ("(threading.py", "_worker (concurrent/futures/thread.py", "(selectors.py", "main_loop (ray/", "Annotator.__call__ (")
# The innermost file of UGRIE's on a stack says what it is at; nothing of UGRIE's is Ray.
PARTS = {
    "the tower": ("ugrie/vision/encoder.py", "ugrie/vision/stage_tower.py"),
    "mapper and template": (
        "ugrie/model/model.py",
        "ugrie/model/mapper.py",
        "ugrie/training/kernel_ridge.py",
        "ugrie/model/slots.py",
        "ugrie/training/init_bart.py",
    ),
    "decoding and cropping": ("pipeline/images/decode.py", "ugrie/vision/preprocess.py"),
    "fetching": (
        "pipeline/images/fetch.py",
        "pipeline/images/row_reader.py",
        "pipeline/storage/client.py",
        "pipeline/storage/filesystem.py",
        "pipeline/storage/parallel.py",
    ),
    "tables, hashes, claims, files": ("pipeline/",),
}
OF_RAY = "Ray Data's and Ray's"


def part_of(stack: str) -> str | None:
    """What a stack (outermost frame first, by `;`) is at; None where it waits."""
    frames = stack.split(";")
    if any(wait in frames[-1] for wait in WAITS):
        return None
    for frame in reversed(frames):
        for part, files in PARTS.items():
            if any(file in frame for file in files):
                return part
    return OF_RAY


class Run:
    """One run of the job, its processes watched."""

    def __init__(self, source: Path, output: Path):
        command = [sys.executable, str(ROOT / "jobs" / "annotate.py"), "--input", str(source), "--output", str(output)]
        self.blocks = output / "_work" / "hotspots" / "rows"
        self.job = subprocess.Popen([*command, "--run-id", "hotspots"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.kinds: dict[int, str] = {self.job.pid: DRIVER}
        self.seconds: dict[int, float] = {}
        self.spies: dict[int, tuple[subprocess.Popen, Path]] = {}

    def watch(self, looks: Path | None) -> tuple[dict[str, float], dict[str, Counter[str]]]:
        """Until the run ends. Its CPU seconds by kind of process, and the samples of each that is looked at by part."""
        root = psutil.Process(self.job.pid)
        while self.job.poll() is None:
            with suppress(psutil.Error):  # it has just ended
                for process in [root, *root.children(recursive=True)]:
                    self._see(process)
            if looks is not None and any(self.blocks.glob("block-*.parquet")):
                self._look(looks)
            time.sleep(0.1)
        if self.job.returncode != 0:
            raise SystemExit(f"the job ended with {self.job.returncode}: {' '.join(map(str, self.job.args))}")  # type: ignore[arg-type]
        seconds: Counter[str] = Counter()
        for pid, spent in self.seconds.items():
            seconds[self.kinds[pid]] += spent  # type: ignore[assignment]  # Counter's values are said to be int
        samples: dict[str, Counter[str]] = {kind: Counter() for kind in LOOKED_AT}
        for pid, (spy, file) in self.spies.items():
            spy.wait()
            for line in file.read_text().splitlines() if file.exists() else []:
                stack, _, count = line.rpartition(" ")
                part = part_of(stack)
                if part is not None:
                    samples[self.kinds[pid]][part] += int(count)
        return dict(seconds), samples

    def _see(self, process: psutil.Process) -> None:
        try:
            title, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:  # it has just ended
            return
        kind = next((kind for start, kind in TITLES.items() if title.startswith(start)), None)
        if kind is not None or process.pid not in self.kinds:
            self.kinds[process.pid] = kind or RAY
        self.seconds[process.pid] = times.user + times.system

    def _look(self, folder: Path) -> None:
        """Starts py-spy on those of the processes that have none yet."""
        for pid, kind in self.kinds.items():
            if kind in LOOKED_AT and pid not in self.spies:
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
    samples: dict[str, Counter[str]] = {kind: Counter() for kind in LOOKED_AT}
    for turn in range(args.repeats):
        spent = {}
        for name in sizes:
            looks = folder / f"looks-{turn}" if name == "larger" else None
            if looks is not None:
                looks.mkdir()
            spent[name], seen = Run(folder / name, folder / f"{name}-{turn}").watch(looks)
            for kind, counts in seen.items():
                samples[kind].update(counts)
        more = args.larger - args.smaller
        kinds = (DRIVER, *LOOKED_AT, REPOSTS, RAY)
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
    arguments.add_argument("--megapixels", type=float, help="enlarge the photos to this")
    arguments.add_argument("--smaller", type=int, default=256)
    arguments.add_argument("--larger", type=int, default=8192)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--json", action="store_true", help="print the results as JSON and do not write them to benchmarks/results")
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="ugrie-bench-") as folder:
        results = measure(args, Path(folder))
    name = "hotspots" if args.megapixels is None else f"hotspots-{args.megapixels:g}mp"
    report(name, results, args.json)


if __name__ == "__main__":
    main()
