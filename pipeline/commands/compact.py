"""Compact a Delta table: merge the small files of each partition into files of about 256 MB.

The output is one of runs with --table-format delta. Runs that the table lacks
are added first. Readers see the table as it was before or as it is after, and
runs may go on meanwhile. The small files stay in place for readers that
started earlier: docs/tables.md tells how to remove them.

Exit codes: 0, 1 if the storage failed, 2 if the output or a setting is wrong.
"""

import datetime as dt
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli import command_app, storage_options

EXAMPLE = """\
ugrie compact --output s3://bucket/emotions
ugrie compact --output s3://bucket/emotions --before 2026-11-01"""
app = command_app("compact", __doc__, EXAMPLE)


@app.default
def compact(
    *,
    output: Annotated[str, Parameter(help="Folder or prefix with annotations/ and runs/")],
    before: Annotated[dt.date | None, Parameter(help="Only partitions before this date, YYYY-MM-DD; by default all")] = None,
    options: Annotated[str, Parameter(name="--storage-options", help="fsspec options for the output, as a JSON object")] = "{}",
) -> None:
    from pipeline.table.journal import alone
    from pipeline.table.output_folder import OutputFolder
    from pipeline.table_formats import delta

    folder = OutputFolder(output, storage_options(options))
    with alone(folder, "ugrie compact"):
        done = delta.compact(folder, before)
    added, removed = done["numFilesAdded"], done["numFilesRemoved"]
    print(f"{removed:,} files merged into {added:,}, in {done['partitionsOptimized']:,} partitions" if removed else "nothing to compact")
