"""Thumbnails of images of committed runs: fetched again, decoded in a sandbox, and compared with the bytes that were annotated."""

import hashlib
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import pydantic
from PIL import Image

from pipeline.config import AnnotateConfig
from pipeline.errors import ImageError, StorageError, UserError
from pipeline.images.coalesce import Row
from pipeline.images.decode import Limits
from pipeline.images.fetch import Fetcher
from pipeline.images.sandbox import Sandbox
from pipeline.report.locate import Located, locate
from pipeline.sources.source import storage_of
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord

IMAGE_SECONDS = 10.0  # for fetching an image, and for decoding it


@dataclass(frozen=True)
class Thumbnail:
    """A JPEG in base64, or the problem that prevented it."""

    jpeg: str | None
    problem: str | None = None


def settings_of(record: RunRecord, output: OutputFolder) -> AnnotateConfig | None:
    """Return a run's settings from its record, with the output's credentials; None if this version can't read them."""
    known = {name: value for name, value in record.config.items() if name in AnnotateConfig.model_fields}
    try:
        return AnnotateConfig.model_validate(known | {"output": output.uri, "storage_options": output.options})
    except pydantic.ValidationError:
        return None


@dataclass(frozen=True)
class Making:
    """How thumbnails are made: pixels along each side, the JPEG's quality, and the seconds for all images of a run."""

    size: int = 160
    quality: int = 72
    seconds: float = 60.0


REPORT = Making()


def thumbnails(
    output: OutputFolder, config: AnnotateConfig | None, images: Sequence[Located], making: Making = REPORT
) -> dict[str, Thumbnail]:
    """Make the thumbnails of images of one run, by content hash. `config` is the run's settings."""
    by_hash = {image.content_hash: image for image in images}
    if config is None:
        return dict.fromkeys(by_hash, Thumbnail(None, "this version of UGRIE can't read the run's settings"))
    found = dict.fromkeys(by_hash, Thumbnail(None, f"not fetched within the {making.seconds:.0f} s for all images"))
    rows = []
    try:
        located = locate(output, config.run_id, storage_of(config.input), list(by_hash.values()))
        for content_hash, row in zip(by_hash, located, strict=True):
            if isinstance(row, ImageError):
                found[content_hash] = _failed(row)
            else:
                rows.append(row | {"content_hash": content_hash})
        rows.sort(key=lambda row: (row["container"] or "", row["position"] or 0))  # neighbours in a file are fetched together
        found |= _fetch(config, rows, making)
    except (StorageError, UserError) as error:  # such as a catalog that is gone: the page is made without these images
        found |= dict.fromkeys((row["content_hash"] for row in rows) if rows else by_hash, Thumbnail(None, str(error)))
    return found


def _fetch(config: AnnotateConfig, rows: list[Row], making: Making) -> Iterator[tuple[str, Thumbnail]]:
    """Yield content hashes with their thumbnails, until the seconds for all are over."""
    config = config.model_copy(update={"fetch_timeout": min(config.fetch_timeout, IMAGE_SECONDS)})
    limits = Limits(making.size, config.max_pixels, min(config.decode_timeout, IMAGE_SECONDS), config.decode_memory)
    deadline = time.monotonic() + making.seconds
    with Sandbox(limits) as sandbox:
        for row, data in Fetcher.of(config).fetch(rows):
            yield row["content_hash"], _thumbnail(sandbox, row["content_hash"], data, making.quality)
            if time.monotonic() > deadline:
                return


def _thumbnail(sandbox: Sandbox, content_hash: str, data: bytes | ImageError, quality: int) -> Thumbnail:
    if isinstance(data, ImageError):
        return _failed(data)
    if hashlib.sha256(data).hexdigest() != content_hash:
        return Thumbnail(None, "the image has changed since it was annotated")
    try:
        crop = sandbox(data).crop
    except ImageError as error:
        return _failed(error)
    buffer = BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=quality, optimize=True)
    return Thumbnail(b64encode(buffer.getvalue()).decode())


def _failed(error: ImageError) -> Thumbnail:
    return Thumbnail(None, f"{error.status}: {error}")
