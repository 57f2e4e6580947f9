"""Writes the page of a run, or of the nights between two dates: what ran, what failed, what the images evoke, and what has changed.

    python jobs/report.py --output s3://bucket/emotions
    python jobs/report.py --output s3://bucket/emotions --since 2026-11-01 --until 2026-11-30 --to november.html

Without --run-id or dates it is about the newest run. jobs/annotate.py writes each run's page, too. The page lies beside the run's
record unless --to says where; it is one file, which needs no network. The exit code is 0, or 2 when something is wrong with the
output or the settings.
"""

import datetime as dt
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from pipeline.errors import UserError

app = App(name="report", help=__doc__, help_format="plaintext", version_flags=[], result_action="return_value")


@app.default
def report(
    *,
    output: Annotated[str, Parameter(help="The folder or prefix with annotations/ and runs/")],
    run_id: Annotated[str | None, Parameter(help="The run; by default the newest")] = None,
    since: Annotated[dt.date | None, Parameter(help="The first night's date; of these nights, the runs of the newest one's model")] = None,
    until: Annotated[dt.date | None, Parameter(help="The last night's date")] = None,
    to: Annotated[str | None, Parameter(help="Path or URI of the page")] = None,
    storage_options: Annotated[str, Parameter(help="fsspec's options for output and input, as a JSON object")] = "{}",
) -> None:
    from pipeline.report.page import write
    from pipeline.table.output_folder import OutputFolder

    try:
        options: dict[str, Any] = dict(json.loads(storage_options))
    except (ValueError, TypeError):
        raise UserError("--storage-options: no JSON object") from None
    print(write(OutputFolder(output, options), run_id, since, until, to))


def run(tokens: Sequence[str] | None = None) -> int:
    """Runs the job with these arguments, those of the command line by default. Returns the exit code."""
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except (CycloptsError, UserError) as error:
        print(f"report: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run())
