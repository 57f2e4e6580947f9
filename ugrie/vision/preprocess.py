"""CLIP's crop of an image as a person sees it: a uint8 square in sRGB.

EXIF orientation is applied. Pixels of any kind become 8-bit colours, laid over white (`ugrie.vision.pixels`), and those with an ICC
profile become sRGB (`ugrie.vision.colour`). An animation is its first frame. The short side is resized to the crop's size (bicubic)
and the centre is cut out: for an RGB image the result is identical to open_clip's `image_transform(size, is_train=False)`. Profiles
are applied last, to the crop's pixels: that costs the same for an image of any size. Needs no torch: workers that decode import it.

libjpeg halves a large JPEG while it decodes: once if the short side is at least four times the crop's size, and again as long as it
stays at least twice the crop's size. Most pixels are then never computed. benchmarks/decode.py measures the time saved and the
difference.
"""

import numpy as np
from PIL import Image

from ugrie.vision.colour import Transform, transform_to_srgb
from ugrie.vision.pixels import orientation, upright

MARGIN = 2  # libjpeg keeps at least this multiple of the crop's size; with 1, its coarser scaling would be visible
LONG = 8  # of an image longer than this multiple of its short side, only the crop's part is resized


def crop(image: Image.Image, size: int) -> np.ndarray:
    """Return the CLIP crop of an image: uint8 [size, size, 3], sRGB. Raises whatever the image's decoder raises."""
    transform = transform_to_srgb(image)
    image, (width, height), (x, y, right, bottom) = _decode(image, size, transform)
    short = min(width, height)
    resized = (max(size, int(size * width / short)), max(size, int(size * height / short)))
    left, top = round((resized[0] - size) / 2.0), round((resized[1] - size) / 2.0)
    if max(resized) > LONG * size:
        across, down = (right - x) / resized[0], (bottom - y) / resized[1]
        box = (x + left * across, y + top * down, x + (left + size) * across, y + (top + size) * down)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    else:
        if resized != image.size:
            image = image.resize(resized, Image.Resampling.BICUBIC, box=(x, y, right, bottom))
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(_to_srgb(image, transform))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image upright and in sRGB. Decodes it; raises whatever its decoder raises."""
    transform = transform_to_srgb(image)
    return _to_srgb(_upright(image, transform), transform)


def _decode(
    image: Image.Image, size: int, transform: Transform | None
) -> tuple[Image.Image, tuple[int, int], tuple[float, float, float, float]]:
    """Decode an image for a crop: upright, its full width and height, and the box of the full image in the decoded one.

    The box differs from the whole decoded image only after a reduction: libjpeg rounds the sides up, so the decoded image exceeds
    the full one by part of a pixel. The excess is at the right and bottom as stored, and moves with the EXIF orientation.
    """
    full = image.size
    image.draft(None, (MARGIN * size, MARGIN * size))  # reduces a JPEG that is not loaded yet; otherwise does nothing
    decoded = image.size
    if decoded == full:
        image = _upright(image, transform)
        return image, image.size, (0.0, 0.0, *image.size)
    reduction = round(full[0] / decoded[0])
    turn = orientation(image)
    image = _upright(image, transform)
    if turn in (5, 6, 7, 8):
        full = full[::-1]
    width, height = full[0] / reduction, full[1] / reduction
    x = image.width - width if turn in (2, 3, 6, 7) else 0.0
    y = image.height - height if turn in (3, 4, 7, 8) else 0.0
    return image, full, (x, y, x + width, y + height)


def _upright(image: Image.Image, transform: Transform | None) -> Image.Image:
    return upright(image, "RGB" if transform is None else transform.input_mode)


def _to_srgb(image: Image.Image, transform: Transform | None) -> Image.Image:
    """Convert pixels that `upright` returned. Those of a mode that the transform doesn't take are as they are, such as a grey palette's."""
    if transform is not None and image.mode == transform.input_mode:
        return transform.apply(image)
    return image if image.mode == "RGB" else image.convert("RGB")
