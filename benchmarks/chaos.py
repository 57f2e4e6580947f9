"""Kills runs at random moments and checks that no row is lost, duplicated or changed.

    python benchmarks/chaos.py --photos DIR [--images 1000] [--runs 40] [--seed 0]
    python benchmarks/chaos.py --photos DIR --nodes 3 --kinds node --runs 10
    python benchmarks/chaos.py --photos DIR --planning --runs 12
    python benchmarks/chaos.py --photos DIR --runs 1 --together

Photos and output are in SeaweedFS, a real S3 server. One run is left undisturbed. In each of the others one process is killed once
(SIGKILL), at a random moment within the length of the shortest run so far: the driver, the actor that annotates, a worker that loads or
writes, or the raylet of the head, each kind in turn (`--kinds`). With `--nodes` the head has no CPUs and that many nodes do the work;
`node` kills one of them with all its processes, and it is not replaced before the run is done. If the driver ends without a
record, the same command is run again until the run is committed; after a kill of the head's raylet, on a new head. With `--together` each
run loses one process of each kind, in a random order, each once a random share of the blocks, at most half, is written.

With `--planning` the undisturbed run is planned by the driver, and the others by the cluster. These lose a process within the time that
planning takes: the driver, a `planner`, which is a worker that lists, compares or writes the manifest, or the raylet.

Then the rows are compared with the undisturbed run's: rows that are missing, duplicated, or different for an image (status, sentence,
labels, probabilities to 1e-4). A proxy in front of the server counts the fetches of each photo: more than one is repeated work.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
import pyarrow.parquet as pq
from measure import report

from benchmarks.compare import file_name, same_labels
from benchmarks.servers.processes import ray_token
from benchmarks.servers.proxy import Proxy
from benchmarks.servers.ray_head import Head, Node, ray_head
from benchmarks.servers.seaweed import S3, seaweed
from pipeline.storage.filesystem import connect

ROOT = Path(__file__).parent.parent
KINDS = ("driver", "actor", "worker", "raylet", "node", "planner")
PLANNING = ("driver", "planner", "raylet")
TITLES = {
    "actor": ("ray::MapWorker(MapBatches(Annotator",),
    "worker": ("ray::MapBatches(",),
    "planner": ("ray::plan", "ray::MapBatches(IdReader", "ray::_disk_shuffle"),
}
IMAGES = (".jpg", ".jpeg", ".png", ".webp")
MOST_COMMANDS = 8
MOST_UNHURT = 20  # runs, beside twice the number asked for, that may end before their kill
PATIENCE = 600.0  # seconds for one command


class Cluster:
    """A Ray head on this machine and the nodes that join it, if any. Dead ones can be replaced."""

    def __init__(self, cpus: int, nodes: int):
        self.cpus, self.count = cpus, nodes
        self.names = (f"node-{i}" for i in count())
        self.stack = ExitStack()
        self.replace()

    def replace(self) -> None:
        self.close()
        self.head: Head = self.stack.enter_context(ray_head(0 if self.count else self.cpus, dashboard=False))
        self.nodes: list[Node] = []
        self.fill()

    def fill(self) -> None:
        """Start as many nodes as are missing."""
        self.nodes = [node for node in self.nodes if node.process.poll() is None]
        while len(self.nodes) < self.count:
            self.nodes.append(self.head.join(next(self.names), self.cpus, store=300_000_000))

    def close(self) -> None:
        self.stack.close()

    def kill_one(self, part: str, rng: random.Random) -> bool:
        """Kill one process (or node) of this kind. Returns whether there was one."""
        targets = self.nodes if part == "node" else self.processes(part)
        if not targets:
            return False
        try:
            rng.choice(targets).kill()
        except psutil.NoSuchProcess:  # it ended by itself at this moment
            return False
        return True

    def processes(self, part: str) -> list[psutil.Process]:
        """Return the cluster's processes of this kind."""
        found = []
        starters = [self.head.pid, *(node.process.pid for node in self.nodes if node.process.poll() is None)]
        for process in (child for pid in starters for child in psutil.Process(pid).children(recursive=True)):
            try:
                title = " ".join(process.cmdline())
                if part == "raylet":
                    matches = process.name() == "raylet" and process.ppid() == self.head.pid
                else:
                    matches = title.startswith(TITLES[part])
                if matches and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


class Run:
    """One run of the job, by as many commands as it takes to commit it."""

    def __init__(self, cluster: Cluster, job: Path, config: Path, name: str):
        self.cluster, self.name = cluster, name
        self.command = [sys.executable, str(job), "--config", str(config), "--run-id", name]
        self.log = config.with_name(f"{name}.log")
        self.commands = 0

    def start(self) -> subprocess.Popen:
        self.commands += 1
        environment = self.cluster.head.environment | {"RAY_ADDRESS": self.cluster.head.address}
        with self.log.open("ab") as log:
            return subprocess.Popen(self.command, env=environment, cwd=ROOT, stdout=log, stderr=log)

    def finish(self, process: subprocess.Popen) -> int:
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"{self.name} did not end within {PATIENCE:g} s: see {self.log}") from None

    def undisturbed(self, is_planned: Callable[[], bool] = lambda: True) -> tuple[float, float]:
        """Return the seconds that the run takes, and those until its plan is written."""
        clock = time.monotonic()
        process = self.start()
        while process.poll() is None and not is_planned():
            time.sleep(0.1)
        planned = time.monotonic() - clock
        if self.finish(process):
            raise RuntimeError(f"the undisturbed run failed: {self.log.read_text()[-2000:]}")
        return time.monotonic() - clock, planned

    def struck(self, kills: Sequence[tuple[str, Callable[[], bool]]], rng: random.Random) -> dict[str, Any]:
        """Kill a process of each kind once its moment has come and there is one; repeat the command until the run is done."""
        clock = time.monotonic()
        process, moments = self.start(), []
        for part, has_come in kills:
            while process.poll() is None and not has_come():
                time.sleep(0.02)
            while process.poll() is None:
                if self._kill(process, part, rng):
                    moments.append(round(time.monotonic() - clock, 2))
                    self._recover(process, part)
                    break
                time.sleep(0.02)
            if process.poll():
                process = self.start()
        while self.finish(process) != 0:
            if self.commands == MOST_COMMANDS:
                raise RuntimeError(f"{self.name} is not done after {self.commands} commands: see {self.log}")
            process = self.start()
        self.cluster.fill()
        return {
            "part": ", ".join(part for part, _ in kills),
            "struck": moments,
            "commands": self.commands,
            "seconds": round(time.monotonic() - clock, 1),
        }

    def _kill(self, process: subprocess.Popen, part: str, rng: random.Random) -> bool:
        """Kill one process of this kind. Returns whether there was one."""
        if part != "driver":
            return self.cluster.kill_one(part, rng)
        process.kill()
        process.wait()
        return True

    def _recover(self, process: subprocess.Popen, part: str) -> None:
        """Do what a supervisor does after a kill: replace the head whose raylet is gone, and end the driver that waits for it."""
        if part == "raylet":
            time.sleep(1)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:  # it may wait for its node until its stall_timeout
                process.kill()
                process.wait()
            self.cluster.replace()


def is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def are_written(count: float, storage: S3, name: str) -> bool:
    """Return whether a run has written so many blocks."""
    fs, root = connect(f"s3://{storage.bucket}/{name}/_work/{name}/rows", storage.options)
    fs.invalidate_cache()
    try:
        return len(fs.ls(root)) >= count
    except FileNotFoundError:  # it has not begun, or is done
        return False


def is_planned(storage: S3, name: str) -> bool:
    """Return whether a run's plan is written."""
    fs, root = connect(f"s3://{storage.bucket}/{name}/_work/{name}/plan.json", storage.options)
    fs.invalidate_cache()
    return bool(fs.exists(root))


def rows_of(storage: S3, output: str, name: str) -> list[dict[str, Any]]:
    fs, root = connect(output, storage.options)
    fs.invalidate_cache()
    record = json.loads(fs.cat_file(f"{root}/runs/{name}.json"))
    rows = []
    for file in record["files"]:
        with fs.open(f"{root}/{file}", "rb") as opened:
            rows += pq.read_table(opened).to_pylist()
    if len(rows) != record["counts"]["rows"]:
        raise RuntimeError(f"{name}: the record counts {record['counts']['rows']} rows, the files hold {len(rows)}")
    left = [path for path in fs.find(root) if path.endswith((".parquet", ".json")) and path.removeprefix(f"{root}/") not in record["files"]]
    if left != [f"{root}/runs/{name}.json"]:
        raise RuntimeError(f"{name} left {left}")
    return rows


def chaos(
    photos: list[Path],
    runs: int,
    seed: int,
    cpus: int,
    block_rows: int,
    nodes: int,
    kinds: Sequence[str],
    together: bool,
    planning: bool,
    job: Path,
) -> Iterator[dict[str, Any]]:
    """Yield the result of the undisturbed run, then that of each other run."""
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="ugrie-chaos-"))
    with ExitStack() as stack:
        stack.enter_context(ray_token())
        server = stack.enter_context(seaweed(folder / "seaweed"))
        fs = server.fs
        for i, photo in enumerate(photos):
            fs.pipe_file(f"{server.bucket}/photos/{i:05d}{photo.suffix}", photo.read_bytes())
        proxy = stack.enter_context(Proxy(server.endpoint))
        seen = S3(proxy.endpoint, server.key, server.secret, server.bucket)
        cluster = Cluster(cpus, nodes)
        stack.callback(cluster.close)

        def run(name: str, by: str) -> Run:
            config = folder / f"{name}.toml"
            settings = {"input": f"s3://{seen.bucket}/photos", "output": f"s3://{seen.bucket}/{name}", "date": "2026-01-02"}
            lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
            lines += [f"block_rows = {block_rows}", "report_images = false", f'planning = "{by}"']  # the report would fetch photos again
            options = f"storage_options = {{ key = {json.dumps(seen.key)}, secret = {json.dumps(seen.secret)}, client_kwargs = "
            options += f'{{ endpoint_url = {json.dumps(seen.endpoint)}, region_name = "us-east-1" }} }}'
            config.write_text("\n".join([*lines, options]) + "\n")
            return Run(cluster, job, config, name)

        seconds, _ = run("undisturbed", "driver").undisturbed()
        wanted = rows_of(server, f"s3://{server.bucket}/undisturbed", "undisturbed")
        yield {"seconds": round(seconds, 1), "rows": len(wanted), "status": dict(Counter(row["status"] for row in wanted))}
        if planning:
            _, seconds = run("planned", "cluster").undisturbed(partial(is_planned, server, "planned"))
        killed = 0
        for i in count():
            if killed == runs:
                break
            if i == 2 * runs + MOST_UNHURT:
                raise RuntimeError(f"{i - killed} of {i} runs ended before all of {', '.join(kinds)} were killed: give more --images")
            name = f"run-{i:02d}"
            if together:
                order, shares = rng.sample(list(kinds), len(kinds)), sorted(rng.uniform(0, 0.5) for _ in kinds)
                kills = [
                    (part, partial(are_written, share * len(photos) / block_rows, server, name))
                    for part, share in zip(order, shares, strict=True)
                ]
            else:
                kills = [(kinds[killed % len(kinds)], partial(is_past, time.monotonic() + rng.uniform(0, seconds)))]
            fetched = proxy.count("GET", f"/{seen.bucket}/photos/")
            story = run(name, "cluster" if planning else "driver").struck(kills, rng)
            killed += len(story["struck"]) == len(kills)
            if not story["struck"]:  # it finished before its moment: another run replaces it, and the range of moments shrinks
                seconds = min(seconds, story["seconds"])
            found = rows_of(server, f"s3://{server.bucket}/{name}", name)
            names = Counter(map(file_name, found))
            problems = same_labels(wanted, found, file_name)
            yield story | {
                "lost": len({file_name(row) for row in wanted} - names.keys()),
                "double": sum(count - 1 for count in names.values()),
                "different": len(problems),
                "repeated": proxy.count("GET", f"/{seen.bucket}/photos/") - fetched - len(photos),
                **({"problems": problems[:3]} if problems else {}),
            }
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--images", type=int, default=1000, help="photos drawn from the folder")
    parser.add_argument("--runs", type=int, default=40, help="runs with a kill; a run that ends before its kill is not counted")
    parser.add_argument("--seed", type=int, default=0, help="of photos, moments and targets")
    parser.add_argument("--cpus", type=int, default=4, help="logical CPUs of each node, as Ray counts them")
    parser.add_argument("--nodes", type=int, default=0, help="worker nodes; the head then has no CPUs")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="kinds of process to kill, in turn")
    parser.add_argument("--planning", action="store_true", help="let the cluster plan the runs, and kill while it does")
    parser.add_argument("--together", action="store_true", help="kill a process of each kind in every run")
    parser.add_argument("--block-rows", type=int, default=32, help="rows of a block")
    parser.add_argument("--stub", action="store_true", help="annotate with a stub of the model, which starts sooner: to test this script")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    if "node" in (args.kinds or ()) and args.nodes < 2:
        parser.error("--kinds node needs --nodes 2 or more: one is killed and the others finish the run")
    found = sorted(path for path in args.photos.rglob("*") if path.suffix.lower() in IMAGES)
    if not found:
        parser.error(f"--photos {args.photos}: it holds no photos: give a folder with .jpg, .png or .webp files")
    photos = random.Random(args.seed).sample(found, min(args.images, len(found)))
    job = ROOT / ("benchmarks/stubs.py" if args.stub else "jobs/annotate.py")
    kinds = args.kinds or (PLANNING if args.planning else KINDS[:4])
    settings = (args.runs, args.seed, args.cpus, args.block_rows, args.nodes, kinds, args.together, args.planning, job)
    undisturbed, *stories = [show(story) for story in chaos(photos, *settings)]
    total = {key: sum(story[key] for story in stories) for key in ("lost", "double", "different", "repeated")}
    struck = sum(len(story["struck"]) for story in stories)
    results = {
        "seed": args.seed,
        "images": len(photos),
        "block_rows": args.block_rows,
        "nodes": args.nodes,
        "cpus": args.cpus,
        "undisturbed": undisturbed,
        "runs": len(stories),
        "killed": struck,
        **total,
        "repeated_share_per_kill": round(total["repeated"] / max(struck, 1) / len(photos), 4),
        "stories": stories,
    }
    report(f"chaos{'-planning' if args.planning else ''}{'-nodes' if args.nodes else ''}", results, args.json)
    return 1 if total["lost"] + total["double"] + total["different"] else 0


def show(story: dict[str, Any]) -> dict[str, Any]:
    print(json.dumps(story), file=sys.stderr, flush=True)
    return story


if __name__ == "__main__":
    sys.exit(main())
