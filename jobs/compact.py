"""Gathers the small files of a Delta table's partitions into large ones, of some 256 MB.

    python jobs/compact.py --output s3://bucket/emotions --before 2026-11-01

The output is one that runs with --table-format delta write into. Runs that the table lacks are added first. Readers of the table see it
as it was or as it is then, and runs may be at work meanwhile. The small files stay where they are, for readers who began before:
docs/tables.md says how to remove them. The exit code is 0, 1 when the storage failed, or 2 when something is wrong with the output or
the settings.
"""

import datetime as dt
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from pipeline.errors import StorageError, UserError
from pipeline.table.delta import compact as compact_table
from pipeline.table.output_folder import OutputFolder

app = App(name="compact", help=__doc__, help_format="plaintext", version_flags=[], result_action="return_value")


@app.default
def compact(
    *,
    output: Annotated[str, Parameter(help="the folder or prefix with annotations/ and runs/")],
    before: Annotated[dt.date | None, Parameter(help="only nights before this date, YYYY-MM-DD; all by default")] = None,
    storage_options: Annotated[str, Parameter(help="fsspec's options for the output, as a JSON object")] = "{}",
) -> None:
    try:
        options: dict[str, Any] = dict(json.loads(storage_options))
    except (ValueError, TypeError):
        raise UserError("--storage-options: no JSON object") from None
    done = compact_table(OutputFolder(output, options), before)
    added, removed = done["numFilesAdded"], done["numFilesRemoved"]
    print(f"{removed:,} files are {added:,} now, in {done['partitionsOptimized']:,} partitions" if removed else "nothing to gather")


def run(tokens: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, those of the command line by default. Returns the exit code."""
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, UserError, StorageError) as error:
        print(f"compact: {' '.join(str(error).split())}", file=sys.stderr)
        return 1 if isinstance(error, StorageError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(run())
