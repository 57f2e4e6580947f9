"""Remove what dead runs left in an output, or erase images from it.

Without --erase: work files, and uncommitted files of the table, which are those
that no run's record lists. A run that is not committed may be running or be
resumed, so its files stay until none of them has changed for --older-than days.

With --erase: the rows of the images on a list, from files of the table, from
runs that are not committed, and from pages. Give the list to later runs as
--suppress, too: images that are still in their input would be new to them.
docs/responsible-use.md has the steps of a deletion request.

Exit codes: 0, 1 if the storage failed or something could not be erased yet,
2 if the output or a setting is wrong.
"""

import datetime as dt
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from pipeline.cli import command_app, storage_options
from ugrie.text import one_line

if TYPE_CHECKING:
    from pipeline.table.output_folder import OutputFolder

EXAMPLE = """\
ugrie clean --output s3://bucket/emotions --dry-run
ugrie clean --output s3://bucket/emotions --erase requests.txt"""
app = command_app("clean", __doc__, EXAMPLE)


@app.default
def clean(
    *,
    output: Annotated[str, Parameter(help="Folder or prefix with annotations/ and runs/")],
    older_than: Annotated[
        float, Parameter(validator=Number(gte=0), help="Days without a change after which an uncommitted run is removed")
    ] = 7.0,
    erase: Annotated[
        str | None,
        Parameter(help="List of images to erase: URIs, image_ids or content_hashes, one a line, or a .parquet with such columns"),
    ] = None,
    options: Annotated[str, Parameter(name="--storage-options", help="fsspec options for the output, as a JSON object")] = "{}",
    dry_run: Annotated[bool, Parameter(negative="", help="List what would be removed, and remove nothing")] = False,
) -> None:
    from pipeline.maintenance.vacuum import leftovers, remove, shown
    from pipeline.table.output_folder import OutputFolder

    folder = OutputFolder(output, storage_options(options))
    if erase is not None:
        _erase(folder, erase, dry_run)
        return
    found = leftovers(folder, dt.timedelta(days=older_than))
    for leftover in found if dry_run else remove(folder, found):
        size = f"{leftover.files:,} files, {leftover.bytes / 1e6:,.1f} MB, last changed {leftover.changed:%Y-%m-%d %H:%M} UTC"
        print(f"{shown(folder, leftover)}  (run {one_line(leftover.run_id)}: {size})")
    print(f"{len(found):,} {'would be ' if dry_run else ''}removed, {sum(leftover.bytes for leftover in found) / 1e6:,.1f} MB")


def _erase(folder: "OutputFolder", erase: str, dry_run: bool) -> None:
    from pipeline.erasure.erase import EraseJob
    from pipeline.logs import start_log
    from pipeline.table.suppressed import read_list

    start_log("text")
    job = EraseJob(folder, *read_list(erase, folder.options))
    rows, dates = 0, set()
    for erased in job.preview() if dry_run else job.run():
        whose = "compacted files" if erased.run_id is None else f"run {one_line(erased.run_id)}"
        if erased.date is None:
            print(f"not committed  {whose}: {erased.rows:,} images, in {erased.files:,} work files")
            continue
        print(f"dt={erased.date}  {whose}: {erased.rows:,} of {erased.of:,} rows, in {erased.files:,} files")
        dates.add(erased.date)
        rows += erased.rows if erased.run_id is not None else 0
    would = "would be " if dry_run else ""
    written = f"; {len(job.pages):,} pages {would}written again" if job.pages else ""
    unknown = f"; {job.entries.missing:,} of {job.about.entries:,} entries name no row"
    print(f"{rows:,} rows of {len(dates):,} nights {would}erased{written}{unknown}")
    for line in job.remaining:
        print(one_line(f"not erased: {line}, and give the same command again"))
    if job.remaining:
        sys.exit(1)
