"""Bytes of an untrusted file to the uint8 crop that the model reads, within limits; each failure named."""

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

if TYPE_CHECKING:  # the process that decodes apart is to start fast
    from pipeline.config import AnnotateConfig

OUT_OF_MEMORY = "decoding it needs more memory than there is, or than decode_memory"
# What photographs come in. Not Pillow's whole list: some of its formats run other programs (EPS) or hold no pixels (WMF).
# MPO is not named: Pillow opens it as the JPEG that it begins with.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA")


@dataclass(frozen=True)
class Limits:
    """What decoding one image may take: pixels, seconds, and the bytes of memory of a process that decodes apart."""

    crop_size: int
    max_pixels: int
    seconds: float
    memory: int

    @classmethod
    def of(cls, config: "AnnotateConfig", crop_size: int) -> "Limits":
        """As a run's settings have it."""
        return cls(crop_size, config.max_pixels, config.decode_timeout, config.decode_memory)


@dataclass(frozen=True)
class Decoded:
    """uint8 crop [size, size, 3], and the width and height of the whole image in pixels, as stored."""

    crop: np.ndarray
    width: int
    height: int


@dataclass(frozen=True)
class Decoder:
    """Decodes in this process. A decode that hangs ends the whole process after its time.

    No thread of Python's could: a native decoder need not give the interpreter back. Whoever runs the process begins the
    block again, then with `pipeline.images.sandbox.Sandbox`, which charges the image alone.
    """

    limits: Limits

    def __call__(self, data: bytes) -> Decoded:
        """Decodes and crops an image. Raises ImageError."""
        faulthandler.dump_traceback_later(self.limits.seconds, exit=True, file=sys.__stderr__ or sys.stderr)
        try:
            return decode(data, self.limits.crop_size, self.limits.max_pixels)
        finally:
            faulthandler.cancel_dump_traceback_later()


def decode(data: bytes, crop_size: int, max_pixels: int) -> Decoded:
    """Decodes and crops an image. Raises ImageError: not_an_image, too_large or corrupt."""
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2  # Pillow refuses twice this, also of an image within another
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities in metadata, and of sizes we check ourselves
        try:
            image = Image.open(BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise ImageError("not_an_image", f"{len(data)} bytes that are no {', '.join(FORMATS)}") from None
        except Image.DecompressionBombError as error:
            raise ImageError("too_large", f"more than max_pixels = {max_pixels}: {error}") from None
        except MemoryError:
            raise ImageError("too_large", OUT_OF_MEMORY) from None
        except Exception as error:  # parsers of headers raise anything; the file is the cause
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
            except Exception as error:  # as above, for the pixels
                raise ImageError("corrupt", f"{type(error).__name__}: {error}") from None
