"""Counts a run's rows by status, duplicate and label."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ugrie.schemes.scheme import Scheme


class FailuresError(RuntimeError):
    """More images failed than the run may commit with. All rows are written, and stay."""


def count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value occurs."""
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}


def count_labels(scheme: Scheme, column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each label occurs; for an ordinal scheme, the level nearest to each value."""
    struct = column.combine_chunks().drop_null()
    if scheme.kind == "categorical":
        found = count_values(pa.chunked_array([struct.field("label")]))
        return {label: found.get(label, 0) for label in scheme.label_names}
    nearest = np.abs(struct.field("value").to_numpy()[:, None] - np.asarray(scheme.values, np.float32)).argmin(1)
    return dict(zip(scheme.label_names, np.bincount(nearest, minlength=len(scheme.values)).tolist(), strict=True))


def sum_counts(results: Sequence[dict[str, Any]], schemes: Sequence[Scheme]) -> dict[str, Any]:
    """Return the sums of the counts of several files, or of the parts of one."""
    status: Counter[str] = Counter()
    reposts = Counter({"run": 0, "earlier": 0})
    for result in results:
        status.update(result["status"])
        reposts.update(result["reposts"])
    labels = {s.name: {label: sum(r["labels"][s.name][label] for r in results) for label in s.label_names} for s in schemes}
    return {"rows": sum(r["rows"] for r in results), "status": dict(status.most_common()), "reposts": dict(reposts), "labels": labels}


def check_failures(counts: dict[str, Any], most: float) -> None:
    """Raise FailuresError if a larger share of the images than `most` failed."""
    rows, ok = counts["rows"], counts["status"].get("ok", 0)
    if rows and (rows - ok) / rows > most:
        kinds = ", ".join(f"{count:,} {status}" for status, count in counts["status"].items() if status != "ok")
        raise FailuresError(
            f"{rows - ok:,} of {rows:,} images failed ({kinds}), more than max_failed_ratio = {most:g}: look at why before you raise it"
        )
