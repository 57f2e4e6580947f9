"""Counts a run's rows by status, duplicate and label, and adds up their values."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import TRANSIENT
from pipeline.table.schema import SchemeMetadata
from ugrie.schemes.scheme import Scheme

SMALL_NIGHT = 10  # with fewer new images, what a few broken files are says nothing about the night


class FailuresError(RuntimeError):
    """More images failed than the run may commit with. Nothing is committed."""


def count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value occurs."""
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}


def count_labels(scheme: Scheme | SchemeMetadata, column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each label occurs; for an ordinal scheme, the level nearest to each value."""
    struct = column.combine_chunks().drop_null()
    if scheme.kind == "categorical":
        found = count_values(pa.chunked_array([struct.field("label")]))
        return {label: found.get(label, 0) for label in scheme.label_names}
    nearest = np.abs(struct.field("value").to_numpy()[:, None] - np.asarray(scheme.values, np.float32)).argmin(1)
    return dict(zip(scheme.label_names, np.bincount(nearest, minlength=len(scheme.label_names)).tolist(), strict=True))


def sum_values(column: pa.ChunkedArray) -> float:
    """Return the sum of an ordinal scheme's values."""
    return pc.sum(pc.cast(pc.struct_field(column, "value"), pa.float64())).as_py() or 0.0


def sum_counts(results: Sequence[dict[str, Any]], schemes: Sequence[Scheme]) -> dict[str, Any]:
    """Return the sums of the counts of several files, or of the parts of one."""
    status: Counter[str] = Counter()
    retried: Counter[str] = Counter()
    reposts = Counter({"run": 0, "earlier": 0})
    for result in results:
        status.update(result["status"])
        retried.update(result["retried"])
        reposts.update(result["reposts"])
    labels = {s.name: {label: sum(r["labels"][s.name][label] for r in results) for label in s.label_names} for s in schemes}
    sums = {s.name: sum(r["sums"][s.name] for r in results) for s in schemes if s.kind == "ordinal"}
    by_status = {"status": dict(status.most_common()), "retried": dict(retried.most_common())}
    return {"rows": sum(r["rows"] for r in results), **by_status, "reposts": dict(reposts), "labels": labels, "sums": sums}


def check_failures(counts: dict[str, Any], most: float) -> None:
    """Raise FailuresError if none of the new images was annotated, or a larger share of them than `most` failed.

    Images that failed in an earlier run, too, say nothing about this one. In a night of fewer than SMALL_NIGHT new images only failures
    that may pass count: a new file that is no image must not stop it.
    """
    new = Counter(counts["status"]) - Counter(counts["retried"])
    rows, failed = new.total(), Counter({status: count for status, count in new.items() if status != "ok"})
    counted = sum(count for status, count in failed.items() if rows >= SMALL_NIGHT or status in TRANSIENT)
    kinds = ", ".join(f"{count:,} {status}" for status, count in failed.most_common())
    if counted and not new["ok"]:
        raise FailuresError(f"none of {rows:,} new images could be annotated ({kinds}): check the input, the storage and the rights")
    if counted and counted / rows > most:
        raise FailuresError(
            f"{failed.total():,} of {rows:,} new images failed ({kinds}), more than max_failed_ratio = {most:g}: "
            "look at why before you raise it"
        )
