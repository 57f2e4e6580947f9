"""Write the report of a run, or of the runs between two dates, as an HTML page.

It shows what ran, what failed, what the images evoke, and what has changed.
Without --run-id or dates it is about the newest run.

The page is one file that needs no network. It is written beside the run's
record, and OUTPUT/index.html, the page of all nights, again; or to --to.
`ugrie annotate` writes both for each run, too.

Exit codes: 0, 1 if the storage failed, 2 if the output or a setting is wrong.
"""

import datetime as dt
from typing import Annotated

from cyclopts import Parameter

from pipeline.cli import command_app, storage_options

EXAMPLE = """\
ugrie report --output s3://bucket/emotions
ugrie report --output s3://bucket/emotions --since 2026-11-01 --until 2026-11-30"""
app = command_app("report", __doc__, EXAMPLE)


@app.default
def report(
    *,
    output: Annotated[str, Parameter(help="Folder or prefix with annotations/ and runs/")],
    run_id: Annotated[str | None, Parameter(help="The run; by default the newest")] = None,
    since: Annotated[
        dt.date | None, Parameter(help="First date, included; runs of another model than the newest run's are left out")
    ] = None,
    until: Annotated[dt.date | None, Parameter(help="Last date, included")] = None,
    to: Annotated[str | None, Parameter(help="Path or URI of the page; by default beside the run's record")] = None,
    options: Annotated[str, Parameter(name="--storage-options", help="fsspec options for output and input, as a JSON object")] = "{}",
) -> None:
    from pipeline.report.page import write
    from pipeline.table.output_folder import OutputFolder

    print(write(OutputFolder(output, storage_options(options)), run_id, since, until, to))
