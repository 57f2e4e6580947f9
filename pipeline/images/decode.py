"""Decoding: bytes of an untrusted file to the uint8 crop that the model reads, within limits, each failure with its status."""

import faulthandler
import sys
import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.errors import ImageError
from ugrie.vision import preprocess

if TYPE_CHECKING:  # the sandbox's process imports this module and must start fast
    from pipeline.config import AnnotateConfig

OUT_OF_MEMORY = "decoding it needs more memory than there is, or than decode_memory"
# The formats of photographs. Not all of Pillow's: some run other programs (EPS) or hold no pixels (WMF).
# MPO needs no entry: Pillow opens it as the JPEG that it begins with.
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


def decode(data: bytes, crop_size: int, max_pixels: int) -> Decoded:
    """Decode and crop an image. Raises ImageError: not_an_image, too_large or corrupt."""
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2  # Pillow refuses more than twice this, also for an image within another
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata, and of sizes that are checked below
        try:
            image = Image.open(BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise ImageError("not_an_image", f"{len(data)} bytes that are no {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError as error:
            raise ImageError("too_large", f"more than max_pixels = {max_pixels}: {error}") from None
        except MemoryError:
            raise ImageError("too_large", OUT_OF_MEMORY) from None
        except Exception as error:  # header parsers raise anything; the file is the cause
            raise ImageError("corrupt", f"{type(error).__name__}: {error}") from None
        with image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError("too_large", f"{width} x {height} pixels, more than max_pixels = {max_pixels}")
            try:
                return Decoded(preprocess.crop(image, crop_size), width, height)
            except Image.DecompressionBombError as error:  # an image within, such as an icon's
                raise ImageError("too_large", f"more than max_pixels = {max_pixels}: {error}") from None
            except MemoryError:
                raise ImageError("too_large", OUT_OF_MEMORY) from None
            except Exception as error:  # as above, from decoding the pixels
                raise ImageError("corrupt", f"{type(error).__name__}: {error}") from None
