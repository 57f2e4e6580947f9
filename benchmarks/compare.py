"""Compares the tables of two runs image by image."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def same_labels(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], key: Callable[[dict[str, Any]], Any]) -> list[str]:
    """List the differences between two tables by image: status, sentence, labels, probabilities. Empty if they agree."""
    left, right = {key(row): row for row in ours}, {key(row): row for row in theirs}
    problems = [f"{len(ours)} rows against {len(theirs)}"] if len(ours) != len(theirs) else []
    problems += [f"{name} is in one only" for name in left.keys() ^ right.keys()]
    for name in left.keys() & right.keys():
        a, b = left[name], right[name]
        problems += [f"{name}: {column} {a[column]} against {b[column]}" for column in ("status", "sentence") if a[column] != b[column]]
        for scheme in (column for column, value in a.items() if isinstance(value, dict)):
            if b[scheme] is None or not np.allclose(a[scheme]["probs"], b[scheme]["probs"], atol=1e-4):
                problems.append(f"{name}: {scheme} {a[scheme]} against {b[scheme]}")
    return problems


def file_name(row: dict[str, Any]) -> str:
    return Path(row["uri"]).name
