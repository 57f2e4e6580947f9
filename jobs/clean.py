"""Removes what dead runs left in an output: their work, and files of the table that no run's record lists.

    python jobs/clean.py --output s3://bucket/emotions

A run that is not committed is left alone until nothing of it has changed for --older-than days, since it may be at work or be
resumed. --dry-run only lists. The exit code is 0, or 2 when something is wrong with the output or the settings.
"""

import datetime as dt
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from pipeline.errors import UserError
from pipeline.table.output_folder import OutputFolder
from pipeline.table.vacuum import leftovers, remove

app = App(name="clean", help=__doc__, help_format="plaintext", version_flags=[], result_action="return_value")


@app.default
def clean(
    *,
    output: Annotated[str, Parameter(help="the folder or prefix with annotations/ and runs/")],
    older_than: Annotated[
        float, Parameter(validator=Number(gte=0), help="days in which nothing of a run that is not committed may have changed")
    ] = 7.0,
    storage_options: Annotated[str, Parameter(help="fsspec's options for the output, as a JSON object")] = "{}",
    dry_run: Annotated[bool, Parameter(negative="", help="list what would be removed, and remove nothing")] = False,
) -> None:
    try:
        options: dict[str, Any] = dict(json.loads(storage_options))
    except (ValueError, TypeError):
        raise UserError("--storage-options: no JSON object") from None
    folder = OutputFolder(output, options)
    found = leftovers(folder, dt.timedelta(days=older_than))
    for leftover in found if dry_run else remove(folder, found):
        size = f"{leftover.files:,} files, {leftover.bytes / 1e6:,.1f} MB, last changed {leftover.changed:%Y-%m-%d %H:%M} UTC"
        print(f"{folder.absolute(leftover.path)}  (run {leftover.run_id}: {size})")
    print(f"{len(found):,} {'would be ' if dry_run else ''}removed, {sum(leftover.bytes for leftover in found) / 1e6:,.1f} MB")


def run(tokens: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, those of the command line by default. Returns the exit code."""
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, UserError) as error:
        print(f"clean: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run())
