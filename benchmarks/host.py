"""Measures what an annotating actor does for a block on the host, with and without its device's lock.

    python benchmarks/host.py                     # half a minute
    python benchmarks/host.py --against FOLDER    # beside another checkout, which has its own .venv

The model's answers are computed before, so that what is left is the host's work: reading the block's table, copying crops, sentences, and
building the columns. What is done with the lock keeps the device from the other block. Blocks are whole, and with every fourth image
failed, so that crops are copied.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import fields
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
ROWS = 256


class TimedLock:
    """A lock that knows how long it was held."""

    def __init__(self) -> None:
        self.lock, self.seconds, self.since = threading.Lock(), 0.0, 0.0

    def __enter__(self) -> None:
        self.lock.acquire()
        self.since = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds += time.perf_counter() - self.since
        self.lock.release()


def measure(root: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a block with and without the lock, by kind of block, in a checkout."""
    sys.path.insert(0, str(root))
    import numpy as np
    import pyarrow as pa

    from pipeline.config import AnnotateConfig
    from pipeline.run.plan import tables_of
    from pipeline.stages.annotate import Annotator, AnnotatorSettings
    from pipeline.stages.tracker import BlockTracker

    config = AnnotateConfig(input="in", output="out", keep_embeddings=True)
    tables = tables_of(config)
    names = tuple(scheme.name for scheme in tables.schemes)
    about = {
        "model": config.model,
        "options": {},
        "tower_weights": None,
        "schemes": names,
        "tables": tables,
        "run_id": "r",
        "device": "cpu",
        "precision": "auto",
        "threads": 1,
        "batch_size": 1,
        "block_rows": ROWS,
        "tracker": BlockTracker(),
    }
    known = {field.name for field in fields(AnnotatorSettings)}  # another checkout's may have fewer
    annotator = Annotator(AnnotatorSettings(**{name: value for name, value in about.items() if name in known}))
    model = annotator.model
    crops = np.random.default_rng(0).integers(0, 256, (ROWS, tables.crop_bytes), dtype=np.uint8)
    found: dict[str, dict[str, float]] = {}
    for kind, ok in {"whole": np.ones(ROWS, bool), "a quarter failed": np.arange(ROWS) % 4 > 0}.items():
        columns = {name: pa.nulls(ROWS, tables.loaded.field(name).type) for name in tables.loaded.names}
        columns |= {"block": pa.array([0] * ROWS, pa.int32()), "status": pa.array(np.where(ok, "ok", "corrupt"))}
        columns |= {"image_id": pa.array(np.arange(ROWS)), "uri": pa.array([f"file:///{i}.jpg" for i in range(ROWS)])}
        columns["crop"] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(tables.crop_bytes), ROWS, [None, pa.py_buffer(crops)])
        block = pa.table([columns[name].cast(tables.loaded.field(name).type) for name in tables.loaded.names], tables.loaded)
        pixels = crops[ok].reshape(-1, tables.crop_size, tables.crop_size, 3)
        encoded = next(iter(model.encode([pixels])))
        prediction = model.predict(encoded, names)
        model.encode = lambda batches, encoded=encoded: (encoded for _ in list(batches))
        model.predict = lambda *_, prediction=prediction: prediction
        times: list[tuple[float, float]] = []
        for _ in range(repeats):
            annotator.device = lock = TimedLock()
            clock = time.perf_counter()
            annotator(block)
            whole = time.perf_counter() - clock
            times.append((lock.seconds, whole - lock.seconds))
        del model.encode, model.predict
        locked, free = (1000 * statistics.median(each) for each in zip(*times, strict=True))
        found[kind] = {"with_the_lock": round(locked, 2), "without": round(free, 2)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40, help="blocks of each kind")
    parser.add_argument("--against", type=Path, help="the folder of another checkout")
    parser.add_argument("--of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    if args.of:
        print(json.dumps(measure(args.of, args.repeats)))
        return
    sys.path.insert(0, str(ROOT))
    from measure import report

    results = {"rows": ROWS, "milliseconds": measure(ROOT, args.repeats)}
    if args.against:
        python = str(args.against / ".venv" / "bin" / "python")
        command = [python, __file__, "--of", str(args.against.resolve()), "--repeats", str(args.repeats)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results["milliseconds_of_the_other"] = json.loads(done.stdout)
    report("host", results, args.json)


if __name__ == "__main__":
    main()
