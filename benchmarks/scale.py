"""Measures how memory and the cost of a row grow from ten thousand to a million images, and the cost of planning ten million.

    python benchmarks/scale.py                    # about half an hour, and some 10 GB of disk
    python benchmarks/scale.py --rows 1000 2000   # other sizes

Each run goes from a table of URIs to the committed record, in a Ray instance of its own. Only images and model are replaced by stubs
(benchmarks/stubs.py), so that UGRIE's own work and Ray's remain. Twice a second the unique memory of each process (USS) and the used
part of Ray's object store are sampled; results are the maxima.

Planning is measured for an output that holds as many annotated images as the input lists: once the same images, once all others.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from measure import report

MIB = 2**20
STORE = 2**30  # bytes of Ray's object store
GROUP = 2**18  # rows written at once, and rows of a file of the earlier run


def uris(first: int, rows: int) -> pa.Array:
    return pa.array([f"s3://bucket/2026/11/{number:012d}.jpg" for number in range(first, first + rows)])


def write_table(path: Path, rows: int, first: int = 0) -> None:
    """Write a table of URIs."""
    with pq.ParquetWriter(path, pa.schema([("uri", pa.string())])) as writer:
        for start in range(first, first + rows, GROUP):
            writer.write_table(pa.table({"uri": uris(start, min(GROUP, first + rows - start))}))


def start_ray() -> list[int]:
    """Start Ray on this machine. Returns the bytes of its object store that were used at each half second."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    # As `connect_ray` does, but with an object store whose size does not depend on the machine.
    os.environ |= {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_USAGE_STATS_ENABLED": "0", "RAY_task_events_report_interval_ms": "0"}
    settings: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(address="local", num_cpus=max(4, os.cpu_count() or 1), object_store_memory=STORE, **settings)
    used: list[int] = [0]
    state = get_state_from_address(ray.get_runtime_context().gcs_address)

    def watch() -> None:
        with suppress(AssertionError):  # raised once Ray has ended, which it does before the process
            while True:
                used.append(get_memory_info_reply(state).store_stats.object_store_bytes_used)
                time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()
    return used


def run(folder: Path) -> None:
    """Annotate the folder's table, in a process of its own. Prints the record and the maximum use of the object store as JSON."""
    from stubs import stub_all

    from pipeline.config import AnnotateConfig
    from pipeline.run.driver import annotate

    stub_all()
    used = start_ray()
    config = AnnotateConfig(input=str(folder / "input.parquet"), output=str(folder / "output"), run_id="scale", column="uri")
    record = annotate(config)
    print(json.dumps({"record": record.model_dump(mode="json"), "store": max(used)}))


def kind_of(process: psutil.Process, driver: int) -> str:
    if process.pid == driver:
        return "driver"
    words = process.cmdline() or [""]
    return "worker" if words[0].startswith("ray::") else "ray"


def most_memory(process: psutil.Process, record: Path) -> tuple[dict[str, float], float]:
    """Sample memory until the process ends. Returns the maxima in MiB: driver, largest worker, all workers, Ray's own processes, all; and
    the CPU seconds of all processes, as they were last seen.

    The driver counts as "report" once the record exists, because it then writes the report.
    """
    most: Counter[str] = Counter()
    seconds: dict[int, float] = {}
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        now: Counter[str] = Counter()
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                kind, size = kind_of(each, process.pid), each.memory_full_info().uss / MIB
                seconds[each.pid] = sum(each.cpu_times()[:2])
                kind = "report" if kind == "driver" and record.exists() else kind
                now[f"{kind}s" if kind == "worker" else kind] += size
                if kind == "worker":
                    now["worker"] = max(now["worker"], size)
        now["all"] = sum(size for kind, size in now.items() if kind != "worker")
        most |= now
        time.sleep(0.5)
    return {name: round(size, 1) for name, size in sorted(most.items())}, round(sum(seconds.values()), 1)


def annotated(rows: int, folder: Path) -> dict[str, Any]:
    """Measure a run of `rows` rows."""
    folder.mkdir()
    write_table(folder / "input.parquet", rows)
    began = time.perf_counter()
    process = psutil.Popen([sys.executable, __file__, "--run", str(folder)], stdout=subprocess.PIPE, text=True)
    memory, _ = most_memory(process, folder / "output" / "runs" / "scale.json")
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the run of {rows} rows ended with {process.returncode}")
    found = json.loads(out.splitlines()[-1])
    record, timings = found["record"], found["record"]["timings"]
    assert record["counts"]["status"] == {"ok": rows}
    sizes = [round((folder / "output" / file).stat().st_size / MIB, 1) for file in record["files"]]
    return {
        "memory_mib": memory | {"object_store": round(found["store"] / MIB, 1)},
        "seconds": round(time.perf_counter() - began, 1),
        "milliseconds_a_row": {
            "plan": round(1000 * timings["plan_seconds"] / rows, 4),
            "annotate": round(1000 / timings["images_per_second"], 4),
            "commit": round(1000 * timings["commit_seconds"] / rows, 4),
        },
        "files": {"count": len(sizes), "mib": sizes, "bytes_a_row": round(sum(sizes) * MIB / rows, 1)},
    }


def plan(folder: Path, keep: tuple[str, ...] = (), planning: Literal["driver", "cluster"] = "driver") -> None:
    """Plan a run, in a process of its own. Prints time and memory as JSON."""
    from pipeline.config import AnnotateConfig
    from pipeline.run.plan import prepare

    used = start_ray() if planning == "cluster" else [0]
    source, output = str(folder / "input.parquet"), str(folder / "output")
    config = AnnotateConfig(input=source, output=output, run_id="plan", column="uri", keep_columns=keep, planning=planning)
    prepared = prepare(config)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss, which is at least what the parent held when it started this process.
    peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    found = {
        "listed": prepared.manifest.listed,
        "new": prepared.manifest.rows,
        "seconds": round(prepared.seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(peak / 1024),
    }
    if planning == "cluster":
        found["object_store_mib"] = round(max(used) / MIB)
    print(json.dumps(found))


def earlier_run(output: Path, rows: int) -> None:
    """Write a committed run that annotated the first `rows` URIs. Its table has only the columns that planning reads, and the URIs."""
    from pipeline.inputs.item import Item
    from pipeline.inputs.manifest import image_id

    def tables() -> Iterator[pa.Table]:
        for first in range(0, rows, GROUP):
            names = uris(first, min(GROUP, rows - first))
            yield pa.table({"image_id": [image_id(Item(name)) for name in names.to_pylist()], "uri": names})

    commit_earlier(output, tables())


def commit_earlier(output: Path, tables: Iterable[pa.Table], keep: tuple[str, ...] = ()) -> None:
    """Write the tables as the files of a committed run."""
    from pipeline.table.schema import SCHEMA_VERSION
    from ugrie.model import checkpoint

    files = []
    (output / "annotations/dt=2026-11-24").mkdir(parents=True)
    for number, table in enumerate(tables):
        files.append(f"annotations/dt=2026-11-24/part-earlier-00000000-{number:05d}.parquet")
        pq.write_table(table, output / files[-1])
    folder = checkpoint.find("ugrie-tiny")
    config = checkpoint.read_config(folder)
    record = {
        "run_id": "earlier",
        "schema_version": SCHEMA_VERSION,
        "model": f"{config.name}@{checkpoint.digest(folder)}",
        "tower": checkpoint.tower_digest(folder, config),
        "date": "2026-11-24",
        "finished_at": "2026-11-24T03:00:00+00:00",
        "schemes": {scheme.name: scheme.kind for scheme in config.template().schemes},
        "counts": {},
        "files": files,
        "config": {"keep_columns": keep},
    }
    (output / "runs").mkdir()
    (output / "runs" / "earlier.json").write_text(json.dumps(record))


def planned(rows: int, folder: Path, planning: str = "driver") -> dict[str, Any]:
    """Measure planning `rows` images: all known, and all new. Of the cluster also what all of its processes take."""
    folder.mkdir()
    earlier_run(folder / "output", rows)
    found = {}
    for case, first in (("all known", 0), ("all new", rows)):
        write_table(folder / "input.parquet", rows, first)
        command = [sys.executable, __file__, "--plan", str(folder), "--by", planning]
        process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
        memory, seconds = most_memory(process, folder / "output" / "runs" / "plan.json")
        out, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"planning {rows} rows by the {planning} ended with {process.returncode}")
        found[case] = json.loads(out.splitlines()[-1]) | {"memory_mib": memory, "all_cpu_seconds": seconds}
        assert found[case]["new"] == (0 if case == "all known" else rows)
        subprocess.run(["rm", "-rf", str(folder / "output" / "_work")], check=True)
    return found


def growth(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the largest run's numbers divided by those of the second largest."""
    before, last = list(runs.values())[-2:]
    return {
        part: {name: round(value / before[part][name], 3) for name, value in last[part].items()}
        for part in ("memory_mib", "milliseconds_a_row")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="rows of each run")
    parser.add_argument(
        "--planned", type=int, default=10_000_000, help="images that the planned run lists, and that the output holds already"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--by", choices=("driver", "cluster"), default="driver", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        return run(args.run)
    if args.plan:
        return plan(args.plan, planning=args.by)
    with tempfile.TemporaryDirectory(prefix="ugrie-scale-") as folder:
        runs = {}
        for rows in args.rows:
            runs[str(rows)] = annotated(rows, Path(folder) / str(rows))
            print(f"{rows}: {runs[str(rows)]}", file=sys.stderr, flush=True)
        results = {"runs": runs, "growth": growth(runs), "planning": planned(args.planned, Path(folder) / "plan")}
    report("scale", results, args.json)


if __name__ == "__main__":
    main()
