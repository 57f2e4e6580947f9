"""Pixels of a decoded image as a person sees them: upright, opaque, and of 8 bits, in mode L or RGB.

Transparent pixels are laid over white. A large image is converted in strips of rows, so that nothing but the image and the result
is ever in memory as a whole.
"""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image

STRIP_PIXELS = 2**20
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Formats in which a fourth channel need not be an alpha channel. Where it is zero everywhere, it is none.
UNSURE_OF_ALPHA = ("BMP", "ICO", "JPEG2000", "TGA", "TIFF")

Convert = Callable[[Image.Image, int], Image.Image]  # a strip of rows, and its top


def upright(image: Image.Image, kept: str = "RGB") -> Image.Image:
    """Return the image upright, opaque and of 8 bits: in mode L or RGB, or as it is in the mode `kept`. Decodes it.

    Raises whatever its decoder raises.
    """
    tile = getattr(image, "tile", None)  # none once it is loaded
    frame = tile[0][1] if image.format == "GIF" and tile else None
    low_bytes = _low_bytes(image)
    image.load()
    turn = orientation(image)
    mode, convert = _conversion(image, kept, low_bytes)
    if frame is not None and frame != (0, 0, *image.size):
        convert = _on_white(convert, frame)
    elif mode == image.mode and not image.has_transparency_data:
        return image if turn not in TURNS else _in_strips(image, mode, lambda strip, top: strip, turn)
    return _in_strips(image, mode, convert, turn)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation: 1 if there is none or it can't be read."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block raises errors of any kind, and the pixels are fine
        return 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened image as stored: Pillow states a TIFF's as turned upright."""
    if image.format == "TIFF":
        return image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength]  # type: ignore[attr-defined]
    return image.size


def _in_strips(image: Image.Image, mode: str, convert: Convert, turn: int) -> Image.Image:
    width, height = image.size
    rows = max(1, STRIP_PIXELS // width)
    if rows >= height:
        return _turned(convert(image, 0), turn)
    out = Image.new(mode, (height, width) if turn in (5, 6, 7, 8) else (width, height))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = _turned(convert(image.crop((0, top, width, bottom)), top), turn)
        at = height - bottom if turn in (3, 4, 6, 7) else top
        out.paste(strip, (at, 0) if turn in (5, 6, 7, 8) else (0, at))
    return out


def _turned(image: Image.Image, turn: int) -> Image.Image:
    return image.transpose(TURNS[turn]) if turn in TURNS else image


def _conversion(image: Image.Image, kept: str, low_bytes: Image.Image | None) -> tuple[str, Convert]:
    """Return the mode of a loaded image's result, and what converts a strip of it."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return "L", _deep_to_grey(image)
    if low_bytes is not None:
        return "RGB", _without_colour_key(image, low_bytes)
    grey = image.mode in ("1", "L", "LA", "La")
    mode = "L" if grey else kept if image.mode == kept else "RGB"
    if image.has_transparency_data and not _is_alpha_unused(image):
        return mode, lambda strip, top: _over_white(strip, mode)
    if grey:
        return mode, lambda strip, top: strip.getchannel(0) if strip.mode in ("LA", "La") else strip.convert("L")
    return mode, lambda strip, top: strip.convert(mode)


def _is_alpha_unused(image: Image.Image) -> bool:
    alpha = image.getbands()[-1]
    return image.format in UNSURE_OF_ALPHA and alpha in ("A", "a") and image.getchannel(alpha).getextrema()[1] == 0


def _over_white(image: Image.Image, mode: str) -> Image.Image:
    image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    shown = Image.alpha_composite(white, image)
    return shown.getchannel(0) if mode == "L" else shown.convert("RGB")


def _on_white(convert: Convert, frame: tuple[int, int, int, int]) -> Convert:
    """Leave white what a first frame does not cover of its canvas."""
    left, upper, right, lower = frame

    def on_white(strip: Image.Image, top: int) -> Image.Image:
        shown = convert(strip, top)
        box = left, max(upper - top, 0), right, min(lower - top, strip.height)
        canvas = Image.new(shown.mode, shown.size, "white")
        if box[1] < box[3]:
            canvas.paste(shown.crop(box), box[:2])
        return canvas

    return on_white


def _low_bytes(image: Image.Image) -> Image.Image | None:
    """Return the low bytes of a PNG of 16-bit colours that has a colour key. Pillow decodes the high bytes alone, in which
    other colours look like the key.
    """
    tile = getattr(image, "tile", None)
    if image.format != "PNG" or image.mode != "RGB" or "transparency" not in image.info or not tile or tile[0][3] != "RGB;16B":
        return None
    file = image.fp  # type: ignore[attr-defined]
    position = file.tell()
    file.seek(0)
    low = Image.open(BytesIO(file.read()), formats=["PNG"])
    file.seek(position)
    low.tile = [tile[0]._replace(args="RGB;16L")]
    low.load()
    return low


def _without_colour_key(image: Image.Image, low_bytes: Image.Image) -> Convert:
    high, low = np.divmod(np.array(image.info["transparency"]), 256)

    def convert(strip: Image.Image, top: int) -> Image.Image:
        pixels = np.array(strip)
        below = np.asarray(low_bytes.crop((0, top, strip.width, top + strip.height)))
        pixels[((pixels == high) & (below == low)).all(-1)] = 255
        return Image.fromarray(pixels)

    return convert


def _deep_to_grey(image: Image.Image) -> Convert:
    """Convert a grey image of more than 8 bits: 16-bit integers by their high byte, others by their range of values."""
    tags = getattr(image, "tag_v2", {})
    unsigned = image.mode == "I" and tags.get(ExifTags.Base.BitsPerSample) == (32,) and tags.get(ExifTags.Base.SampleFormat, (1,)) == (1,)
    inverted = tags.get(ExifTags.Base.PhotometricInterpretation) == 0  # white is zero
    key = image.info.get("transparency")

    def numbers(strip: Image.Image) -> np.ndarray:
        pixels = np.asarray(strip)
        return np.nan_to_num((pixels.view(np.uint32) if unsigned else pixels).astype(np.float64))

    rows = max(1, STRIP_PIXELS // image.width)
    strips = (numbers(image.crop((0, top, image.width, min(top + rows, image.height)))) for top in range(0, image.height, rows))
    ranges = [(strip.min(), strip.max()) for strip in strips]
    low, high = min(least for least, _ in ranges), max(greatest for _, greatest in ranges)
    if image.mode != "F" and low >= 0 and high < 65536:
        low, factor, divisor = 0, 1, 257 if image.mode.startswith("I;16") or high > 255 else 1
    else:
        factor, divisor = 255 / (high - low) if high > low else 0, 1

    def convert(strip: Image.Image, top: int) -> Image.Image:
        pixels = numbers(strip)
        grey = np.round((pixels - low) * factor / divisor).astype(np.uint8)
        if inverted:
            grey = 255 - grey
        if isinstance(key, int):
            grey[pixels == key] = 255
        return Image.fromarray(grey)

    return convert
