"""Small pictures of some images of committed runs: fetched once more, decoded apart, and checked to be what was annotated."""

import hashlib
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import pydantic
from PIL import Image

from pipeline.config import AnnotateConfig
from pipeline.errors import ImageError, StorageError
from pipeline.images.coalesce import Row
from pipeline.images.decode import Limits
from pipeline.images.fetch import Fetcher
from pipeline.images.sandbox import Sandbox
from pipeline.report.highlights import Pick
from pipeline.report.locate import places
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord

SIZE = 160  # pixels of a side
QUALITY = 72
SECONDS, ALL_SECONDS = 10.0, 60.0  # that fetching or decoding an image may take, and all of a run's


@dataclass(frozen=True)
class Picture:
    """A JPEG in base64, or the problem that there was with it."""

    jpeg: str | None
    problem: str | None = None


def settings_of(record: RunRecord, output: OutputFolder) -> AnnotateConfig | None:
    """Return a run's settings from its record, which has no secrets; None where another version's can't be read."""
    known = {name: value for name, value in record.config.items() if name in AnnotateConfig.model_fields}
    try:
        return AnnotateConfig.model_validate(known | {"output": output.uri, "storage_options": output.options})
    except pydantic.ValidationError:
        return None


def pictures(output: OutputFolder, config: AnnotateConfig | None, picks: Sequence[Pick]) -> dict[str, Picture]:
    """Pictures of images of one run, by content hash."""
    wanted = {pick.content_hash: pick for pick in picks}
    if config is None:
        return dict.fromkeys(wanted, Picture(None, "the run's settings are of another version"))
    found = dict.fromkeys(wanted, Picture(None, "there was no time left to fetch it"))
    rows = []
    for key, place in zip(wanted, places(output, config.run_id, config.input, list(wanted.values())), strict=True):
        if isinstance(place, ImageError):
            found[key] = _problem(place)
        else:
            rows.append(place | {"content_hash": key})
    rows.sort(key=lambda row: (row["container"] or "", row["position"] or 0))  # neighbours in a file are read together
    try:
        found |= _made(config, rows)
    except StorageError as error:
        found |= dict.fromkeys((row["content_hash"] for row in rows), Picture(None, str(error)))
    return found


def _made(config: AnnotateConfig, rows: list[Row]) -> Iterator[tuple[str, Picture]]:
    """Content hashes with their pictures, until the time is over."""
    quick = config.model_copy(update={"fetch_timeout": min(config.fetch_timeout, SECONDS)})
    limits = Limits(SIZE, config.max_pixels, min(config.decode_timeout, SECONDS), config.decode_memory)
    until = time.monotonic() + ALL_SECONDS
    with Sandbox(limits) as sandbox:
        for row, data in Fetcher.of(quick).fetch(rows):
            yield row["content_hash"], _picture(sandbox, row["content_hash"], data)
            if time.monotonic() > until:
                return


def _picture(sandbox: Sandbox, content_hash: str, data: bytes | ImageError) -> Picture:
    if isinstance(data, ImageError):
        return _problem(data)
    if hashlib.sha256(data).hexdigest() != content_hash:
        return Picture(None, "it is another image by now")
    try:
        crop = sandbox(data).crop
    except ImageError as error:
        return _problem(error)
    buffer = BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return Picture(b64encode(buffer.getvalue()).decode())


def _problem(error: ImageError) -> Picture:
    return Picture(None, f"{error.status}: {error}")
