"""Locates the images of a committed run, to fetch them once more: by its manifest while that exists, later by their URIs."""

import re
from collections.abc import Sequence

from pipeline.errors import ImageError
from pipeline.images.coalesce import Row
from pipeline.inputs.manifest import plan_path, saved_manifest
from pipeline.report.highlights import Pick
from pipeline.storage.filesystem import connect, names
from pipeline.storage.parallel import mapped
from pipeline.storage.uris import protocol, refusal, storage_of
from pipeline.table.output_folder import OutputFolder

WITHIN = re.compile(r"(.+?\.(?:parquet|tar))!/(.+)", re.IGNORECASE | re.DOTALL)
THREADS = 16  # which wait for storage, most of the time


def places(output: OutputFolder, run_id: str, source: str, picks: Sequence[Pick]) -> list[Row | ImageError]:
    """Return the manifest row of each image of a run, or the error that it can't be located. Raises UserError."""
    plan = output.read_json(plan_path(run_id))
    if plan is None:
        return [_place(pick.uri, source) for pick in picks]
    manifest = saved_manifest(run_id, plan)
    blocks = sorted({pick.row // manifest.block_rows for pick in picks})  # the table's rows are in the order of the manifest's
    rows = dict(zip(blocks, mapped(lambda block: manifest.read(output, block), blocks, THREADS), strict=True))
    return [rows[pick.row // manifest.block_rows].slice(pick.row % manifest.block_rows, 1).to_pylist()[0] for pick in picks]


def _place(uri: str, source: str) -> Row | ImageError:
    """Where an image is, as far as its URI tells. Of a file that it lies in that is believed only where the source lies, too."""
    row: Row = {"uri": uri, "size": None, "version": "", "container": None, "position": None, "link": None}
    if (within := WITHIN.fullmatch(uri)) is None:
        return row
    container, inner = within.groups()
    ours = names(source)
    if protocol(container) not in ours or storage_of(container) != storage_of(source) or refusal(container, frozenset(ours)):
        return ImageError("forbidden", "the file that it lies in is not where the run's input is")
    if not container.lower().endswith(".parquet") or not inner.isdecimal():
        return ImageError("missing", "its place in the .tar was forgotten when the run was done")
    return row | {"container": connect(container, {})[1], "position": int(inner)}
