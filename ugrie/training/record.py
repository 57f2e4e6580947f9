"""The folder that a training writes to, and its record, training.json: how the checkpoint was made.

It tells whether the same training is already done, and whose folder it is.
"""

import json
import os
from pathlib import Path
from typing import Any

from ugrie.atomic import write_whole
from ugrie.errors import GivenError

FILE = "training.json"


def check_writable(output: Path, cache: Path) -> None:
    """Raise GivenError if `output` or `cache` can't be written to."""
    for flag, folder in (("--output", output), ("--cache", cache)):
        existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise GivenError(f"{flag} {folder}: {existing} is no folder that can be written to")


def read_record(output: Path) -> dict[str, Any]:
    """Return the record in a checkpoint's folder; empty if it is missing or invalid."""
    try:
        record = json.loads((output / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(output: Path, record: dict[str, Any]) -> None:
    """Write the record, whole or not at all."""
    write_whole(output / FILE, lambda part: part.write_text(json.dumps(record, indent=1) + "\n"))
