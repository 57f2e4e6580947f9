"""Measures what three kept columns add to planning ten million rows of a Parquet table, in time and in memory.

    python benchmarks/kept_columns.py                  # a quarter of an hour on an idle core, and some 3 GB of disk
    python benchmarks/kept_columns.py --rows 100000    # another size

The same table is planned without its columns and with them (a number, a text and a time), each in a process of its own: the first night,
when all rows are new, and the next one, when all are known. Processes are compared by CPU seconds, which other work on the machine changes
little, and by their peak memory.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scale
from measure import report

COLUMNS = ("post_id", "user_id", "posted_at")
CASES: dict[str, tuple[str, ...]] = {"without": (), "with": COLUMNS}
FIRST = 1_700_000_000_000_000  # of the times, in microseconds


def write_posts(path: Path, rows: int) -> None:
    """Write a table of URIs, each with a post's number, its user and its time."""
    draw = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, scale.GROUP):
        count = min(scale.GROUP, rows - start)
        users = pa.array(draw.integers(0, rows // 5 + 1, count)).cast(pa.string())
        times = FIRST + np.sort(draw.integers(0, 86_400_000_000, count))
        table = pa.table(
            {
                "uri": scale.uris(start, count),
                "post_id": pa.array(np.arange(start, start + count) * 977 + 9_000_000_000),
                "user_id": pc.binary_join_element_wise("user", users, "-"),
                "posted_at": pa.array(times).cast(pa.timestamp("us", "UTC")),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def night(folder: Path, case: str) -> dict[str, Any]:
    """Plan the folder's table in a process of its own. Return its time and memory."""
    done = subprocess.run([sys.executable, __file__, "--plan", str(folder), "--case", case], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{case}: {found}", file=sys.stderr, flush=True)
    return found


def commit_planned(output: Path, keep: tuple[str, ...]) -> None:
    """Turn the rows of the planned run into those of a committed run, as far as planning reads them."""
    columns = ["image_id", "uri", *(["row_id"] if keep else [])]
    manifest = sorted((output / "_work").rglob("part-*.parquet"))

    def tables() -> Iterator[pa.Table]:
        most = -(-scale.GROUP // pq.ParquetFile(manifest[0]).metadata.num_rows)  # files of the manifest for one of the table
        for first in range(0, len(manifest), most):
            yield pa.concat_tables(pq.read_table(file, columns=columns) for file in manifest[first : first + most])

    scale.commit_earlier(output, tables(), keep)
    shutil.rmtree(output / "_work")


def compared(nights: dict[str, dict[str, Any]], rows: int) -> dict[str, Any]:
    """Return both measurements, what the columns add to each row, and the quotients."""
    without, kept = nights["without"], nights["with"]
    return nights | {
        "added_to_a_row": {
            "cpu_microseconds": round(1e6 * (kept["cpu_seconds"] - without["cpu_seconds"]) / rows, 2),
            "peak_bytes": round(2**20 * (kept["peak_mib"] - without["peak_mib"]) / rows, 1),
        },
        "times": {name: round(kept[name] / without[name], 2) for name in ("cpu_seconds", "peak_mib")},
    }


def planned(rows: int, folder: Path) -> dict[str, Any]:
    """Measure planning `rows` rows without and with their columns: all new, and all known."""
    folder.mkdir()
    write_posts(folder / "input.parquet", rows)
    nights: dict[str, dict[str, Any]] = {"all new": {}, "all known": {}}
    for case, keep in CASES.items():
        nights["all new"][case] = night(folder, case)
        assert nights["all new"][case]["new"] == rows
        commit_planned(folder / "output", keep)
        nights["all known"][case] = night(folder, case)
        assert nights["all known"][case]["new"] == 0
        shutil.rmtree(folder / "output")
    return {"rows": rows} | {name: compared(each, rows) for name, each in nights.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the table")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plan:
        return scale.plan(args.plan, CASES[args.case])
    with tempfile.TemporaryDirectory(prefix="ugrie-kept-columns-") as folder:
        results = planned(args.rows, Path(folder) / "plan")
    report("kept-columns", results, args.json)


if __name__ == "__main__":
    main()
