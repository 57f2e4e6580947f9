"""training.json: how a checkpoint was made. It tells whether the same training is already done, and whose folder it is."""

import json
from pathlib import Path
from typing import Any

from ugrie.atomic import write_whole

FILE = "training.json"


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
