"""An image as a person would see it, resized and cropped as CLIP does: a uint8 square.

EXIF orientation is applied; palette, greyscale, CMYK and 16-bit images become RGB; transparency lies on white; an animation
is its first frame. Then the short side is resized to the crop's size (bicubic) and the centre is cut out, to the pixel what
open_clip's `image_transform(size, is_train=False)` does with an RGB image. Needs no torch: the workers that decode import it.

A JPEG whose short side is four times the crop's or more is halved, by libjpeg while it decodes, as often as it stays twice the
crop's: most of its pixels are never made. benchmarks/decode.py measures what that saves and what it changes.
"""

import numpy as np
from PIL import ExifTags, Image, ImageOps

STRIP_PIXELS = 2**20
MARGIN = 2  # times the crop's size that are left to the resizing; with one, libjpeg's coarser scaling would show


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright and in RGB. Decodes it; whatever the decoder raises goes through."""
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block raises anything at all, and leaves a good picture
        image.info.pop("exif", None)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _sixteen_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def crop(image: Image.Image, size: int) -> np.ndarray:
    """The CLIP crop of an image: uint8 [size, size, 3], RGB."""
    whole = image.size
    image.draft(None, (MARGIN * size, MARGIN * size))  # does nothing to an image that is no JPEG, or that is loaded
    decoded = image.size
    orientation = 1 if decoded == whole else _orientation(image)  # to ask a PNG for it would decode it
    image = to_rgb(image)
    # What is cut out is settled by the whole image's size: a reduced one is rounded up, and a pixel of the crop is many of its pixels.
    reduced = round(whole[0] / decoded[0])
    width, height = image.size if reduced == 1 else whole if image.size == decoded else whole[::-1]
    resized = (size, max(size, int(size * height / width))) if width <= height else (max(size, int(size * width / height)), size)
    left, top = round((resized[0] - size) / 2.0), round((resized[1] - size) / 2.0)
    # What it was rounded up by lies on the right and at the bottom, as it was stored.
    beyond = (image.width - width / reduced, image.height - height / reduced)
    x, y = (beyond[0] if orientation in (2, 3, 6, 7) else 0.0), (beyond[1] if orientation in (3, 4, 7, 8) else 0.0)
    scale = (width / reduced / resized[0], height / reduced / resized[1])
    long = max(resized) > 8 * size  # resize only what the crop needs
    across, down = ((left, left + size), (top, top + size)) if long else ((0, resized[0]), (0, resized[1]))
    right, bottom = min(image.width, x + across[1] * scale[0]), min(image.height, y + down[1] * scale[1])
    box = (x + across[0] * scale[0], y + down[0] * scale[1], right, bottom)
    if long:
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    if resized != image.size:
        image = image.resize(resized, Image.Resampling.BICUBIC, box=box)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _orientation(image: Image.Image) -> int:
    """EXIF's, by which `to_rgb` turns the image: 1 where there is none that could be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as there
        return 1


def _sixteen_bit(image: Image.Image) -> Image.Image:
    """16-bit integers by their high byte; other deep images stretched from their least value to their greatest.

    By strips of rows, since as floats a large image would take several times its own memory.
    """
    pixels = np.asarray(image)
    height = max(1, STRIP_PIXELS // pixels.shape[1])
    strips = [slice(top, top + height) for top in range(0, len(pixels), height)]
    ranges = [(strip.min(), strip.max()) for strip in (_finite(pixels[rows]) for rows in strips)]
    low, high = min(least for least, _ in ranges), max(greatest for _, greatest in ranges)
    if image.mode != "F" and low >= 0 and high < 65536:
        low, factor, divisor = 0, 1, 257 if image.mode.startswith("I;16") or high > 255 else 1
    else:
        factor, divisor = 255 / (high - low) if high > low else 0, 1
    grey = np.empty(pixels.shape, np.uint8)
    for rows in strips:
        grey[rows] = np.round((_finite(pixels[rows]) - low) * factor / divisor)
    return Image.fromarray(grey).convert("RGB")


def _finite(pixels: np.ndarray) -> np.ndarray:
    return np.nan_to_num(pixels.astype(np.float64))
