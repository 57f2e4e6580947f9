"""Colours of ICC profiles become sRGB, as littleCMS converts them; profiles that don't fit are ignored."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from ugrie.vision import colour
from ugrie.vision.colour import transform_to_srgb
from ugrie.vision.preprocess import crop, to_rgb

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))  # its primaries as XYZ, adapted to D50
WHITE = (0.9642, 1.0, 0.8249)  # D50


def number(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile(space: bytes, colours=(), gamma: float = 2.2) -> bytes:
    """Make a display profile of a grey (b"GRAY") or an RGB (b"RGB ") space, with the primaries `colours`."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    names = [b"rXYZ", b"gXYZ", b"bXYZ"]
    tags = {name: b"XYZ " + bytes(4) + b"".join(map(number, xyz)) for name, xyz in zip(names, colours, strict=False)}
    tags |= dict.fromkeys([b"rTRC", b"gTRC", b"bTRC"] if colours else [b"kTRC"], curve + bytes(-len(curve) % 4))
    tags |= {b"wtpt": b"XYZ " + bytes(4) + b"".join(map(number, WHITE))}
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", 0, bytes(4), 0x02100000, b"mntr", space, b"XYZ ") + bytes(12) + b"acsp"
    header = (header + bytes(28) + b"".join(map(number, WHITE))).ljust(128, b"\0")
    return struct.pack(">I", len(header + table + body)) + (header + table + body)[4:]


def saved(image: Image.Image, kind: str = "PNG", **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def by_image_cms(image: Image.Image, icc: bytes) -> np.ndarray:
    shown = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(icc)), SRGB, outputMode="RGB")
    return np.asarray(shown).astype(int)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch):
    monkeypatch.setattr(colour, "_cache", {})


def test_pure_red_of_p3_is_pure_red_of_srgb():
    image = saved(Image.new("RGB", (40, 30), (234, 51, 35)), icc_profile=profile(b"RGB ", P3))
    assert np.abs(crop(image, 16).astype(int) - (255, 0, 0)).max() <= 3
    assert np.abs(np.asarray(to_rgb(image)).astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_photo_of_another_space_is_what_image_cms_makes_of_it(kind):
    icc = profile(b"RGB ", P3)
    y, x = np.mgrid[0:400, 0:600] / 60
    image = Image.fromarray(np.stack([120 + 90 * np.sin(x * k + y) for k in (1, 2, 3)], -1).astype(np.uint8))
    written = saved(image, kind, icc_profile=icc, quality=95)
    expected = crop(Image.fromarray(by_image_cms(saved(image, kind, quality=95).convert("RGB"), icc).astype(np.uint8)), 64)
    assert np.abs(crop(written, 64).astype(int) - expected).mean() < 1


@pytest.mark.parametrize(
    ("mode", "options"), [("RGBA", {}), ("P", {}), ("P", {"transparency": 0}), ("RGB", {"transparency": (1, 2, 3)})], ids=str
)
def test_every_kind_of_pixels_is_converted_and_what_is_clear_stays_white(mode, options):
    image = Image.new("RGB", (20, 10), (234, 51, 35))
    image.paste((1, 2, 3), (0, 0, 10, 10))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(np.repeat([[0] * 10 + [255] * 10], 10, 0).astype(np.uint8)))
    if options == {"transparency": 0}:
        options = {"transparency": image.getpixel((0, 0))}
    shown = np.asarray(to_rgb(saved(image, icc_profile=profile(b"RGB ", P3), **options)))
    assert np.abs(shown[5, 15].astype(int) - (255, 0, 0)).max() <= 3
    assert (shown[5, 5].tolist() == [255] * 3) is (options != {} or mode == "RGBA")


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_of_another_gamma_is_converted(mode):
    icc = profile(b"GRAY", gamma=1.0)
    grey = np.linspace(0, 255, 256).astype(np.uint8)[None].repeat(4, 0)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    expected = by_image_cms(Image.fromarray(grey), icc)
    assert expected[0, 64, 0] > 120, "linear grey is brighter than it is stored"
    assert np.abs(np.asarray(to_rgb(saved(image, icc_profile=icc))).astype(int) - expected).max() <= 1


def test_lab_is_shown_in_its_colours():
    red = ImageCms.profileToProfile(
        Image.new("RGB", (8, 8), (200, 30, 40)), SRGB, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), outputMode="LAB"
    )
    assert np.abs(crop(saved(red, "TIFF"), 8).astype(int) - (200, 30, 40)).max() <= 4


def test_cmyk_keeps_its_inks_for_its_profile(monkeypatch):
    """A transform of four inks is applied to the crop; there is no small CMYK profile to embed, so that one is stood in for."""

    class Inks:
        input_mode = "CMYK"

        def apply(self, image):
            assert image.mode == "CMYK"
            return Image.fromarray(np.asarray(image)[..., :3])

    monkeypatch.setattr("ugrie.vision.preprocess.transform_to_srgb", lambda image: Inks())
    assert crop(saved(Image.new("CMYK", (40, 30), (10, 20, 30, 40)), "TIFF"), 8)[4, 4].tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    "icc",
    [b"no profile", bytes(200), profile(b"RGB ", P3)[:200], profile(b"GRAY"), profile(b"CMYK"), b""],
    ids=["text", "zeros", "cut_off", "grey", "inks", "empty"],
)
def test_a_profile_that_is_broken_or_of_other_channels_is_ignored(pixels, icc):
    image = Image.fromarray(pixels(20, 10))
    np.testing.assert_array_equal(np.asarray(to_rgb(saved(image, icc_profile=icc))), np.asarray(image))


def test_a_text_named_as_the_profile_is_none():
    image = Image.new("RGB", (8, 8))
    image.info["icc_profile"] = "text"
    assert transform_to_srgb(image) is None


def test_srgb_costs_nothing_whatever_its_profile_is_called():
    image = Image.new("RGB", (8, 8))
    image.info["icc_profile"] = SRGB.tobytes()
    assert transform_to_srgb(image) is None
    image.info["icc_profile"] = profile(b"RGB ", P3)
    assert transform_to_srgb(image) is not None


def test_a_profile_is_read_once_and_a_bounded_number_is_kept(monkeypatch):
    read = []
    build = colour._transform
    monkeypatch.setattr(colour, "_transform", lambda profile, channels: read.append(profile) or build(profile, channels))
    image = Image.new("RGB", (8, 8))
    for gamma in [*range(10, 10 + 2 * colour.CACHED)] * 1 + [9 + 2 * colour.CACHED] * 5:
        image.info["icc_profile"] = profile(b"RGB ", P3, gamma=gamma / 10)
        transform_to_srgb(image)
    assert len(read) == 2 * colour.CACHED
    assert len(colour._cache) == colour.CACHED


def test_profiles_are_applied_to_the_crop_alone(pixels, monkeypatch):
    seen = []
    transform = ImageCms.ImageCmsTransform.apply
    monkeypatch.setattr(ImageCms.ImageCmsTransform, "apply", lambda self, im, *args: seen.append(im.size) or transform(self, im, *args))
    crop(saved(Image.fromarray(pixels(400, 300)), icc_profile=profile(b"RGB ", P3)), 32)
    assert seen[-1] == (32, 32)
    assert len(seen) == 2, "besides the comparison with sRGB"
