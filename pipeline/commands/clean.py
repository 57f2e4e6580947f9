"""Remove what dead runs left in an output: work files, and uncommitted table files.

Uncommitted files of the table are those that no run's record lists. A run that
is not committed may be running or be resumed, so its files stay until none of
them has changed for --older-than days.

Exit codes: 0, 1 if the storage failed, 2 if the output or a setting is wrong.
"""

import datetime as dt
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from pipeline.cli import command_app, storage_options
from ugrie.text import one_line

EXAMPLE = """\
ugrie clean --output s3://bucket/emotions --dry-run
ugrie clean --output s3://bucket/emotions"""
app = command_app("clean", __doc__, EXAMPLE)


@app.default
def clean(
    *,
    output: Annotated[str, Parameter(help="Folder or prefix with annotations/ and runs/")],
    older_than: Annotated[
        float, Parameter(validator=Number(gte=0), help="Days without a change after which an uncommitted run is removed")
    ] = 7.0,
    options: Annotated[str, Parameter(name="--storage-options", help="fsspec options for the output, as a JSON object")] = "{}",
    dry_run: Annotated[bool, Parameter(negative="", help="List what would be removed, and remove nothing")] = False,
) -> None:
    from pipeline.maintenance.vacuum import leftovers, remove, shown
    from pipeline.table.output_folder import OutputFolder

    folder = OutputFolder(output, storage_options(options))
    found = leftovers(folder, dt.timedelta(days=older_than))
    for leftover in found if dry_run else remove(folder, found):
        size = f"{leftover.files:,} files, {leftover.bytes / 1e6:,.1f} MB, last changed {leftover.changed:%Y-%m-%d %H:%M} UTC"
        print(f"{shown(folder, leftover)}  (run {one_line(leftover.run_id)}: {size})")
    print(f"{len(found):,} {'would be ' if dry_run else ''}removed, {sum(leftover.bytes for leftover in found) / 1e6:,.1f} MB")
