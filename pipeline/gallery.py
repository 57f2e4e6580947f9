"""Small pictures of some images of committed runs: fetched once more, decoded apart, and checked to be what was annotated."""

import hashlib
import json
import re
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fsspec
import pydantic
from PIL import Image

from pipeline.config import AnnotateConfig
from pipeline.decode import Limits
from pipeline.errors import ImageError, StorageError
from pipeline.fetch import Fetcher
from pipeline.manifest import Manifest
from pipeline.sandbox import Sandbox
from pipeline.shelves import Pick
from pipeline.spans import Row
from pipeline.storage import Options, connect, names, read
from pipeline.uris import protocol, refusal, storage_of

SIZE = 160  # pixels of a side
QUALITY = 72
SECONDS, ALL_SECONDS = 10.0, 60.0  # that fetching or decoding an image may take, and all of a run's
WITHIN = re.compile(r"(.+?\.(?:parquet|tar))!/(.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Picture:
    """A JPEG in base64, or the problem that there was with it."""

    jpeg: str | None
    problem: str | None = None


def settings_of(record: Mapping[str, Any], output: str, options: Options) -> AnnotateConfig | None:
    """A run's settings as its record has them, or None where another version's can't be read. Secrets are not in it."""
    known = {name: value for name, value in record["config"].items() if name in AnnotateConfig.model_fields}
    try:
        return AnnotateConfig.model_validate(known | {"output": output, "storage_options": options})
    except pydantic.ValidationError:
        return None


def pictures(fs: fsspec.AbstractFileSystem, root: str, config: AnnotateConfig | None, picks: Sequence[Pick]) -> dict[str, Picture]:
    """Pictures of images of one run, by content hash."""
    wanted = {pick.content_hash: pick for pick in picks}
    found = {key: Picture(None, "there was no time left to fetch it") for key in wanted}
    if config is None:
        return {key: Picture(None, "the run's settings are of another version") for key in wanted}
    manifest = _manifest(fs, root, config.run_id)
    rows = []
    for key, pick in wanted.items():
        try:
            rows.append((_row_of(fs, manifest, pick) if manifest else place(pick.uri, config.input)) | {"hash": key})
        except (ImageError, OSError) as error:
            found[key] = Picture(None, str(error))
    rows.sort(key=lambda row: (row["container"] or "", row["position"] or 0))
    quick = config.model_copy(update={"fetch_timeout": min(config.fetch_timeout, SECONDS)})
    limits = Limits(SIZE, config.max_pixels, min(config.decode_timeout, SECONDS), config.decode_memory)
    until = time.monotonic() + ALL_SECONDS
    try:
        with Sandbox(limits) as sandbox:
            for row, data in Fetcher.of(quick).fetch(rows):
                found[row["hash"]] = _picture(sandbox, row["hash"], data)
                if time.monotonic() > until:
                    break
    except StorageError as error:
        found |= {row["hash"]: Picture(None, str(error)) for row in rows if found[row["hash"]].jpeg is None}
    return found


def _picture(sandbox: Sandbox, content_hash: str, data: bytes | ImageError) -> Picture:
    try:
        if isinstance(data, ImageError):
            raise data
        if hashlib.sha256(data).hexdigest() != content_hash:
            return Picture(None, "it is another image by now")
        buffer = BytesIO()
        Image.fromarray(sandbox(data).crop).save(buffer, "JPEG", quality=QUALITY, optimize=True)
        return Picture(b64encode(buffer.getvalue()).decode())
    except ImageError as error:
        return Picture(None, f"{error.status}: {error}")


def _manifest(fs: fsspec.AbstractFileSystem, root: str, run_id: str) -> Manifest | None:
    """The run's manifest, which is there until its work is removed."""
    work = f"{root}/_work/{run_id}"
    try:
        settled = json.loads(read(fs, f"{work}/plan.json"))
    except FileNotFoundError:
        return None
    return Manifest(f"{work}/{settled['manifest']}", *(settled[name] for name in ("rows", "block_rows", "listed", "known")))


def _row_of(fs: fsspec.AbstractFileSystem, manifest: Manifest, pick: Pick) -> Row:
    """The rows of the table are in the order of the manifest's."""
    block, place = divmod(pick.row, manifest.block_rows)
    return manifest.read(fs, block).slice(place, 1).to_pylist()[0]


def place(uri: str, source: str) -> Row:
    """Where an image is, as far as its URI tells. Raises ImageError.

    What its row says of a file that it lies in is believed only for the storage that the source lies in.
    """
    row: Row = {"uri": uri, "size": None, "version": "", "container": None, "position": None, "link": None}
    if (within := WITHIN.fullmatch(uri)) is None:
        return row
    container, inner = within.groups()
    if (
        protocol(container) not in names(source)
        or storage_of(container) != storage_of(source)
        or refusal(container, frozenset(names(source)))
    ):
        raise ImageError("forbidden", "the file that it lies in is not where the run's input is")
    if not container.lower().endswith(".parquet") or not inner.isdecimal():
        raise ImageError("missing", "its place in the .tar was forgotten when the run was done")
    return row | {"container": connect(container, {})[1], "position": int(inner)}
