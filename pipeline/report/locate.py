"""Locates the images of a committed run, to fetch them again: by its manifest while that exists, later by their URIs."""

import re
from collections.abc import Sequence
from typing import Protocol

from pipeline.errors import ImageError
from pipeline.images.coalesce import Row
from pipeline.inputs.manifest import plan_path, saved_manifest
from pipeline.storage.filesystem import connect, protocol_names
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import protocol, storage_key, why_refused
from pipeline.table.output_folder import OutputFolder

WITHIN = re.compile(r"(.+?\.(?:parquet|tar))!/(.+)", re.IGNORECASE | re.DOTALL)
THREADS = 16  # mostly waiting for storage


class Located(Protocol):
    """An image of a committed run: its URI, the SHA-256 of its bytes, and the number of its row within the run."""

    @property
    def uri(self) -> str: ...
    @property
    def content_hash(self) -> str: ...
    @property
    def row(self) -> int: ...


def locate(output: OutputFolder, run_id: str, source: str, images: Sequence[Located]) -> list[Row | ImageError]:
    """Return the manifest row of each image of a run, or the error that it can't be located. Raises UserError."""
    plan = output.read_json(plan_path(run_id))
    if plan is None:
        return [_from_uri(image.uri, source) for image in images]
    manifest = saved_manifest(run_id, plan)
    # The table's rows are in the manifest's order, but without those that another run annotated meanwhile.
    blocks = sorted({image.row // manifest.block_rows for image in images})
    rows = dict(zip(blocks, parallel_map(lambda block: manifest.read(output, block), blocks, THREADS), strict=True))
    planned = [rows[image.row // manifest.block_rows].slice(image.row % manifest.block_rows, 1).to_pylist()[0] for image in images]
    return [row if row["uri"] == image.uri else _from_uri(image.uri, source) for row, image in zip(planned, images, strict=True)]


def _from_uri(uri: str, source: str) -> Row | ImageError:
    """Return a manifest row made from a URI alone. A container file (.parquet, .tar) is trusted only in the input's own storage."""
    row: Row = {"uri": uri, "size": None, "version": "", "container": None, "position": None, "link": None}
    if (within := WITHIN.fullmatch(uri)) is None:
        return row
    container, inner = within.groups()
    protocols = protocol_names(source)
    if (
        protocol(container) not in protocols
        or storage_key(container) != storage_key(source)
        or why_refused(container, frozenset(protocols))
    ):
        return ImageError("forbidden", "the file that contains it is not in the storage of the run's input")
    if not container.lower().endswith(".parquet") or not inner.isdecimal():
        return ImageError("missing", "its position in the .tar was deleted with the run's manifest")
    return row | {"container": connect(container, {})[1], "position": int(inner)}
