"""Decoding: bytes of an untrusted file to the uint8 crop that the model reads, within limits, each failure with its status."""

import faulthandler
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.errors import ImageError
from pipeline.images import repair, signatures
from ugrie.vision import preprocess
from ugrie.vision.pixels import stored_size

if TYPE_CHECKING:  # the sandbox's process imports this module and must start fast
    from pipeline.config import AnnotateConfig

HEIF = find_spec("pillow_heif") is not None  # the extra `heif` is installed
OUT_OF_MEMORY = "decoding it needs more memory than there is, or than decode_memory"
# The formats of photographs. Not all of Pillow's: some run other programs (EPS) or hold no pixels (WMF).
# MPO needs no entry: Pillow opens it as the JPEG that it begins with.
NO_MEMORY = re.compile(r"(?i)out of memory|insufficient memory|memory allocation|allocate memory|decoder error -9\b")  # of decoders in C
BITS_PER_SAMPLE = 258  # of TIFF
BYTES_PER_PIXEL = 8  # that decoding takes at most: the decoded image, and its colours
# Decoders that hold more copies of an image. As many bytes of memory are then fewer pixels.
COSTLY = {"WEBP": 16, "AVIF": 10, "HEIF": 10, "JPEG2000": 25}
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA")


@dataclass(frozen=True)
class Limits:
    """Limits of decoding one image: pixels, seconds, and the bytes of memory of the sandbox's process."""

    crop_size: int
    max_pixels: int
    seconds: float
    memory: int

    @classmethod
    def of(cls, config: "AnnotateConfig", crop_size: int) -> "Limits":
        """Return the limits of a run's settings."""
        return cls(crop_size, config.max_pixels, config.decode_timeout, config.decode_memory)


def identity(config: "AnnotateConfig") -> str:
    """Return what decides which images fail to decode: the limits, and the versions of UGRIE and of the decoders."""
    versions = [f"{name} {_version(name)}" for name in ("ugrie", "pillow", "pillow_heif")]
    limits = [f"{name} {getattr(config, name)}" for name in ("max_pixels", "decode_timeout", "decode_memory")]
    return ", ".join(versions + limits)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@dataclass(frozen=True)
class Decoded:
    """A decoded image: uint8 crop [size, size, 3], and the width and height of the whole image in pixels, as stored."""

    crop: np.ndarray
    width: int
    height: int


@dataclass(frozen=True)
class Decoder:
    """Decodes in this process. A decode that takes longer than its limit ends the whole process.

    A thread could not interrupt it: a native decoder need not release the interpreter lock. The block is then retried in another
    process with `pipeline.images.sandbox.Sandbox`, where only the image fails.
    """

    limits: Limits

    def __call__(self, data: bytes) -> Decoded:
        """Decode and crop an image. Raises ImageError."""
        faulthandler.dump_traceback_later(self.limits.seconds, exit=True, file=sys.__stderr__ or sys.stderr)
        try:
            return decode(data, self.limits.crop_size, self.limits.max_pixels)
        finally:
            faulthandler.cancel_dump_traceback_later()


def decode(data: bytes, crop_size: int, max_pixels: int, memory: int | None = None) -> Decoded:
    """Decode and crop an image. Raises ImageError: not_an_image, too_large or corrupt.

    `memory` is the limit of this process in bytes, if it has one.
    """
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2  # Pillow refuses more than twice this, also for an image within another
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, and of sizes that are checked below
        try:
            return _decode(data, crop_size, max_pixels, memory)
        except ImageError as error:
            if error.status == "too_large":
                raise
            failure = error
        for mended in _repaired(data):
            try:
                return _decode(mended, crop_size, max_pixels, memory)
            except ImageError as error:
                if error.status == "too_large":
                    raise
        raise failure


def _decode(data: bytes, crop_size: int, max_pixels: int, memory: int | None) -> Decoded:
    expected = 0
    try:
        with _open(data) as image:
            width, height = stored_size(image)
            expected = width * height * _bytes_per_pixel(image)
            _check_size(image.format, width, height, _bytes_per_pixel(image), max_pixels)
            return Decoded(preprocess.crop(image, crop_size), width, height)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError("not_an_image", _unidentified(data)) from None
    except Image.DecompressionBombError as error:  # also of an image within, such as an icon's
        raise ImageError("too_large", f"more than max_pixels = {max_pixels}: {error}") from None
    except Exception as error:  # parsers and decoders raise anything; the file is the cause
        # libjpeg reports a lack of memory as broken data. The process's libraries take some hundred megabytes of its limit.
        may_lack = memory is not None and expected > memory // 4
        raise _failure(error, may_lack) from None


def _bytes_per_pixel(image: Image.Image) -> int:
    """Return the bytes of memory that decoding an opened image takes at most, for each of its pixels."""
    if image.format == "TIFF":  # a strip of it is decoded at once, and may be all of it
        bits = image.tag_v2.get(BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
        return max(BYTES_PER_PIXEL, 4 + sum(bits) // 8)
    return COSTLY.get(image.format or "", BYTES_PER_PIXEL)


def _check_size(kind: str | None, width: int, height: int, each: int, max_pixels: int) -> None:
    """Raise ImageError (too_large) for an image of more than `max_pixels`, or that takes more memory than so many mostly take."""
    if width * height > max_pixels:
        raise ImageError("too_large", f"{width} x {height} pixels, more than max_pixels = {max_pixels}")
    if width * height * each > max_pixels * BYTES_PER_PIXEL:
        most = max_pixels * BYTES_PER_PIXEL // each
        reason = f"{each} bytes of memory a pixel instead of {BYTES_PER_PIXEL}"
        raise ImageError("too_large", f"{width} x {height} pixels, more than the {most} of {kind} at max_pixels = {max_pixels}: {reason}")


def _open(data: bytes) -> Image.Image:
    if signatures.is_heif(data) and HEIF:
        load_heif()
        return Image.open(BytesIO(data), formats=("HEIF",))
    return Image.open(BytesIO(data), formats=FORMATS)


@cache
def load_heif() -> None:
    """Load the decoder of HEIC from the extra `heif`. Few runs need it."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)


def _unidentified(data: bytes) -> str:
    """Return the message for a file that no decoder takes."""
    try:
        kind = signatures.kind_of(data)
    except Exception:  # whatever is wrong with the file, it is no image
        kind = None
    if kind is None:
        return f"{len(data)} bytes that are no {', '.join(FORMATS)}"
    if signatures.is_heif(data):
        return f"{kind} that is damaged" if HEIF else f"{kind}: {signatures.HEIF_EXTRA}"
    return kind if ":" in kind else f"{kind}: not a format that is read, or its header is damaged"


def _repaired(data: bytes) -> Iterator[bytes]:
    try:
        yield from repair.repaired(data)
    except MemoryError:
        raise ImageError("too_large", OUT_OF_MEMORY) from None


def _failure(error: Exception, may_lack_memory: bool) -> ImageError:
    """Return the failure for an error of a decoder."""
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) or may_lack_memory:
        return ImageError("too_large", OUT_OF_MEMORY)
    return ImageError("corrupt", f"{type(error).__name__}: {error}")
