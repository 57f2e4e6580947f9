"""Colour management: converts pixels from the colour space of an ICC profile to sRGB, by littleCMS.

A profile that is broken, or that does not fit the image's channels, is ignored, as browsers do.
"""

import hashlib
from io import BytesIO
from itertools import product

import numpy as np
from PIL import Image, ImageCms

Transform = ImageCms.ImageCmsTransform

CHANNELS = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of a profile, as the mode of the pixels
CACHED = 16  # transforms that are kept: most corpora have a handful of profiles
SAME = 2  # levels by which a profile's colours differ at most from sRGB for it to count as sRGB
SRGB = ImageCms.createProfile("sRGB")
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))

_cache: dict[tuple[bytes, str], Transform | None] = {}


def transform_to_srgb(image: Image.Image) -> Transform | None:
    """Return what converts an image's pixels to sRGB; None if they are sRGB or have no profile that fits.

    The transform takes pixels of its `input_mode`: L, RGB, CMYK or LAB.
    """
    if image.mode == "LAB":
        return _cached(b"", "LAB")
    profile = image.info.get("icc_profile")
    return _cached(profile, _channels(image.mode)) if profile and isinstance(profile, bytes) else None


def _cached(profile: bytes, channels: str) -> Transform | None:
    key = hashlib.sha256(profile).digest(), channels
    if key in _cache:
        return _cache[key]
    transform = _transform(profile, channels)
    if len(_cache) >= CACHED:
        _cache.pop(next(iter(_cache)), None)  # the oldest
    _cache[key] = transform
    return transform


def _transform(profile: bytes, channels: str) -> Transform | None:
    try:
        source = LAB if channels == "LAB" else ImageCms.ImageCmsProfile(BytesIO(profile))
        if channels != "LAB" and CHANNELS.get(source.profile.xcolor_space.strip()) != channels:
            return None
        transform = ImageCms.buildTransform(source, SRGB, channels, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return None if _is_srgb(transform) else transform


def _is_srgb(transform: Transform) -> bool:
    """Return whether a transform leaves colours as they are."""
    if transform.input_mode not in ("RGB", "L"):
        return False
    levels = range(0, 256, 15)
    colours = np.array([list(product(levels, repeat=len(transform.input_mode)))], np.uint8)
    shown = transform.apply(Image.fromarray(colours if transform.input_mode == "RGB" else colours[..., 0]))
    return bool(np.abs(np.asarray(shown).astype(int) - colours).max() <= SAME)


def _channels(mode: str) -> str:
    if mode == "CMYK":
        return mode
    return "L" if mode in ("1", "L", "LA", "La", "I", "F") or mode.startswith("I;16") else "RGB"
