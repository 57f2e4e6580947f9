"""CLIP's crop of an image as a person sees it: a uint8 square.

EXIF orientation is applied. Palette, greyscale, CMYK and 16-bit images become RGB. Transparent pixels are laid over white. An
animation is its first frame. Then the short side is resized to the crop's size (bicubic) and the centre is cut out: for an RGB image
the result is identical to open_clip's `image_transform(size, is_train=False)`. Needs no torch: workers that decode import it.

libjpeg halves a large JPEG while it decodes: once if the short side is at least four times the crop's size, and again as long as it
stays at least twice the crop's size. Most pixels are then never computed. benchmarks/decode.py measures the time saved and the
difference.
"""

import numpy as np
from PIL import ExifTags, Image, ImageOps

STRIP_PIXELS = 2**20
MARGIN = 2  # libjpeg keeps at least this multiple of the crop's size; with 1, its coarser scaling would be visible
LONG = 8  # of an image longer than this multiple of its short side, only the crop's part is resized


def crop(image: Image.Image, size: int) -> np.ndarray:
    """Return the CLIP crop of an image: uint8 [size, size, 3], RGB. Raises whatever the image's decoder raises."""
    image, (width, height), (x, y, right, bottom) = _decode(image, size)
    short = min(width, height)
    resized = (max(size, int(size * width / short)), max(size, int(size * height / short)))
    left, top = round((resized[0] - size) / 2.0), round((resized[1] - size) / 2.0)
    if max(resized) > LONG * size:
        across, down = (right - x) / resized[0], (bottom - y) / resized[1]
        box = (x + left * across, y + top * down, x + (left + size) * across, y + (top + size) * down)
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))
    if resized != image.size:
        image = image.resize(resized, Image.Resampling.BICUBIC, box=(x, y, right, bottom))
    return np.asarray(image.crop((left, top, left + size, top + size)))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image upright and in RGB. Decodes it; raises whatever its decoder raises."""
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block raises errors of any kind, and the pixels are fine
        image.info.pop("exif", None)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep_to_rgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _decode(image: Image.Image, size: int) -> tuple[Image.Image, tuple[int, int], tuple[float, float, float, float]]:
    """Decode an image for a crop: upright and in RGB, its full width and height, and the box of the full image in the decoded one.

    The box differs from the whole decoded image only after a reduction: libjpeg rounds the sides up, so the decoded image exceeds
    the full one by part of a pixel. The excess is at the right and bottom as stored, and moves with the EXIF orientation.
    """
    full = image.size
    image.draft(None, (MARGIN * size, MARGIN * size))  # reduces a JPEG that is not loaded yet; otherwise does nothing
    decoded = image.size
    if decoded == full:
        image = to_rgb(image)
        return image, image.size, (0.0, 0.0, *image.size)
    reduction = round(full[0] / decoded[0])
    orientation = _orientation(image)
    image = to_rgb(image)
    if image.size != decoded:
        full = full[::-1]
    width, height = full[0] / reduction, full[1] / reduction
    x = image.width - width if orientation in (2, 3, 6, 7) else 0.0
    y = image.height - height if orientation in (3, 4, 7, 8) else 0.0
    return image, full, (x, y, x + width, y + height)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that `to_rgb` applies: 1 if there is none or it can't be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # errors of any kind, as in `to_rgb`
        return 1


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """Convert a grey image of more than 8 bits to RGB: 16-bit integers by their high byte, others by their range of values.

    Works on strips of rows: as floats, a large image would take several times its own memory.
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
