"""Measures planning by the cluster: of as many images as the driver plans, beside the driver, and of more.

    python benchmarks/planning.py                          # about an hour on two cores, and some 20 GB of disk
    python benchmarks/planning.py --rows 100000 1000000    # other sizes; the driver plans the first

A table of so many URIs is planned for an output that holds as many annotated images: once the same images, once all others, as in
benchmarks/scale.py. The driver's peak memory is what the system counts of its process; of a cluster on this machine the unique memory of
each process (USS) and the used part of Ray's object store are sampled twice a second as well.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import scale
from measure import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000_000, 50_000_000], help="images listed, and as many in the output")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    results: dict[str, dict[str, Any]] = {"driver": {}, "cluster": {}}
    for planning, rows in (("driver", args.rows[0]), *(("cluster", rows) for rows in args.rows)):
        with tempfile.TemporaryDirectory(prefix="ugrie-planning-") as folder:
            found = results[planning][str(rows)] = scale.planned(rows, Path(folder) / "plan", planning)
        print(f"{planning}, {rows}: {found}", file=sys.stderr, flush=True)
    report("planning", results, args.json)


if __name__ == "__main__":
    main()
