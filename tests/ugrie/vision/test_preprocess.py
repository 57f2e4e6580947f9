"""Crops are identical to open_clip's, and show images of every mode as a person sees them."""

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import Compose, ToTensor

from ugrie.libraries import open_clip
from ugrie.vision.preprocess import crop, to_rgb

SIDES = st.integers(1, 150)


@pytest.fixture(autouse=True)
def no_limit(monkeypatch):
    """Remove Pillow's pixel limit: it is global, and the pipeline's decoder sets it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


def open_clips_crop(image: Image.Image, size: int) -> np.ndarray:
    """Return the crop of open_clip's pipeline, before it becomes a tensor."""
    steps = open_clip.transform.image_transform(size, is_train=False).transforms
    tensor = next(i for i, step in enumerate(steps) if isinstance(step, ToTensor) or type(step).__name__ == "MaybeToTensor")
    return np.asarray(Compose(steps[:tensor])(image))


def saved(image: Image.Image, kind: str, **options) -> Image.Image:
    """Save the image in memory and open it again."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def plain(image: Image.Image) -> np.ndarray:
    """Return all pixels, upright and in RGB."""
    return np.asarray(to_rgb(image)).astype(int)


@settings(deadline=None)
@given(width=SIDES, height=SIDES, size=st.sampled_from([16, 32, 33]), seed=st.integers(0, 5))
def test_a_crop_is_open_clips_to_the_pixel(pixels, width, height, size, seed):
    if max(width, height) > 8 * min(width, height):
        width = min(width, 8 * height)
        height = min(height, 8 * width)
    image = Image.fromarray(pixels(width, height, seed))
    np.testing.assert_array_equal(crop(image, size), open_clips_crop(image, size))


@settings(deadline=None, max_examples=30)
@given(width=st.integers(19, 150), height=st.integers(19, 150))
def test_a_grey_images_crop_is_open_clips_to_the_pixel(pixels, width, height):
    image = Image.fromarray(pixels(width, height, channels=1))
    assert image.mode == "L"
    np.testing.assert_array_equal(crop(image, 32), open_clips_crop(image, 32))


@pytest.mark.parametrize(("width", "height"), [(640, 480), (375, 500), (224, 224), (225, 224), (100, 80), (1600, 224), (223, 1777)])
def test_crops_of_common_sizes_are_open_clips_to_the_pixel(pixels, width, height):
    image = Image.fromarray(pixels(width, height))
    np.testing.assert_array_equal(crop(image, 224), open_clips_crop(image, 224))


def test_a_crop_is_three_channels_of_bytes(pixels):
    for image in (Image.fromarray(pixels(40, 30)), Image.fromarray(pixels(40, 30, channels=1)), Image.new("1", (7, 9))):
        result = crop(image, 24)
        assert (result.shape, result.dtype) == ((24, 24, 3), np.uint8)


@pytest.mark.parametrize("upright", [(1, 5000), (5000, 1), (3, 4000), (5000, 17), (1, 1), (1, 2)])
def test_a_very_long_image_is_never_blown_up(monkeypatch, upright):
    """Resized as a whole to a short side of 224, 1 x 5000 would be a gigabyte."""
    seen = []
    resize = Image.Image.resize

    def watched(self, size, *args, **kwargs):
        seen.append(size)
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", watched)
    width, height = upright
    ramp = np.linspace(0, 255, max(upright)).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp[None, :] if width > height else ramp[:, None], (height, width)).copy())
    result = crop(image, 224)
    assert result.shape == (224, 224, 3)
    assert seen
    assert max(max(size) for size in seen) <= 8 * 224
    if max(upright) > 2:
        assert np.abs(result.astype(int) - 127).max() <= 3, "the crop shows the middle of the ramp"


@pytest.mark.parametrize(("width", "height"), [(10, 131), (200, 11), (4, 300)])
def test_a_very_long_images_crop_is_open_clips_but_for_rounding(pixels, width, height):
    image = Image.fromarray(pixels(width, height))
    ours, theirs = crop(image, 32).astype(int), open_clips_crop(image, 32).astype(int)
    assert np.abs(ours - theirs).mean() < 2


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an upright picture as a camera stores it: EXIF names the sides that the stored first row and column show."""
    row, column = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    out = upright.swapaxes(0, 1) if row in ("left", "right") else upright
    out = out[::-1] if row in ("bottom", "right") else out
    return np.ascontiguousarray(out[:, ::-1] if column in ("bottom", "right") else out)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_stands_upright_however_the_camera_was_held(pixels, orientation, kind):
    upright = pixels(30, 20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = saved(Image.fromarray(stored(upright, orientation)), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(plain(image), upright)
    np.testing.assert_array_equal(crop(image, 16), crop(Image.fromarray(upright), 16))


def photo(width: int, height: int, **options) -> Image.Image:
    """Make a JPEG like a photo, of shapes and shades without noise, and open it."""
    y, x = np.mgrid[0:height, 0:width]
    bands = [128 + 90 * np.sin(x * k / width + y * (5 - k) / height) + 30 * (((x - y) * 9 // width) % 2) for k in (1, 7, 23)]
    return saved(Image.fromarray(np.stack(bands, 2).clip(0, 255).astype(np.uint8)), "JPEG", quality=95, **options)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(
    ("width", "height"), [(1031, 517), (517, 1031), (520, 520), (2000, 264), (1001, 1000), (1024, 768), (1203, 819), (1049, 715)]
)
def test_a_large_jpeg_is_decoded_smaller_and_cropped_alike(width, height, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    whole = photo(width, height, exif=exif)
    whole.load()
    halved = photo(width, height, exif=exif)
    ours = crop(halved, 64)
    assert min(halved.size) < 2 * 2 * 64 <= min(width, height), "it was decoded at half its size or less"
    assert min(halved.size) >= 2 * 64
    assert psnr(ours, crop(whole, 64)) > 40, "also if a side that can't be halved was rounded up"


@pytest.mark.parametrize(("width", "height"), [(1026, 1032), (1032, 1026)])
def test_a_large_jpeg_that_is_square_only_once_it_is_reduced_is_cropped_alike_when_turned(width, height):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole, reduced = photo(width, height, exif=exif), photo(width, height, exif=exif)
    whole.load()
    ours = crop(reduced, 64)
    assert reduced.size[0] == reduced.size[1]
    assert psnr(ours, crop(whole, 64)) > 44


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_below_four_times_the_crop_is_decoded_whole(pixels, kind):
    image = saved(Image.fromarray(pixels(300, 255)), kind)
    crop(image, 64)
    assert image.size == (300, 255)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_large_jpeg_of_another_mode_keeps_its_colours(mode):
    image = saved(photo(600, 600).convert(mode), "JPEG", quality=95)
    whole = saved(photo(600, 600).convert(mode), "JPEG", quality=95)
    whole.load()
    assert psnr(crop(image, 64), crop(whole, 64)) > 40


def test_a_large_jpeg_that_is_cut_off_is_still_found_out():
    buffer = io.BytesIO()
    photo(1200, 900).save(buffer, "JPEG")
    with pytest.raises(OSError, match="truncated"):
        crop(Image.open(io.BytesIO(buffer.getvalue()[: buffer.tell() // 2])), 64)


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_means_nothing_is_passed_over(pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(plain(saved(Image.fromarray(pixels(20, 10)), "PNG", exif=exif)), pixels(20, 10))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\xff\xff\xff\xff\0\0\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0",
        b"\0",
    ],
    ids=["text", "cut_off", "string", "far_away", "empty", "zero"],
)
def test_broken_exif_costs_nothing_but_the_orientation(pixels, exif, kind):
    image = Image.fromarray(pixels(24, 16))
    np.testing.assert_array_equal(plain(saved(image, kind, exif=exif)), plain(saved(image, kind)))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None, max_examples=60)
@given(exif=st.binary(max_size=60), order=st.sampled_from([b"II*\0", b"MM\0*", b""]))
def test_no_exif_whatever_makes_an_image_fail(pixels, exif, order):
    assert crop(saved(Image.fromarray(pixels(9, 5)), "JPEG", exif=b"Exif\0\0" + order + exif), 8).shape == (8, 8, 3)


def over_white(colour, alpha) -> np.ndarray:
    return np.round((np.asarray(colour, float) * alpha + 255.0 * (255 - alpha)) / 255)


@pytest.mark.parametrize("alpha", [0, 1, 64, 128, 254, 255])
@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (10, 200, 60)), ("LA", (90,))])
def test_what_is_transparent_lies_on_white(mode, colour, alpha):
    image = saved(Image.new(mode, (6, 4), (*colour, alpha)), "PNG")
    assert image.mode == mode
    expected = over_white(colour if len(colour) == 3 else colour * 3, alpha)
    assert np.abs(plain(image) - expected).max() <= 1
    assert np.abs(crop(image, 8) - expected).max() <= 1


def test_a_half_transparent_edge_is_not_darkened():
    """Hidden pixels are black in most files: they must be white before the image is resized."""
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[:, 20:] = 255
    assert crop(Image.fromarray(pixels, "RGBA"), 16).min() == 255


def test_a_palettes_transparent_colour_is_white():
    image = Image.new("P", (4, 2))
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    image.putdata([0, 1, 2, 0] * 2)
    clear = saved(image, "PNG", transparency=1)
    assert clear.mode == "P"
    np.testing.assert_array_equal(plain(clear)[0], [(255, 0, 0), (255, 255, 255), (0, 255, 0), (255, 0, 0)])
    half = saved(image, "PNG", transparency=bytes([255, 128, 0]))
    assert np.abs(plain(half)[0] - [(255, 0, 0), (127, 127, 255), (255, 255, 255), (255, 0, 0)]).max() <= 1
    np.testing.assert_array_equal(plain(saved(image, "PNG"))[0], [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0)])


@pytest.mark.parametrize(("mode", "key", "shown"), [("RGB", (7, 8, 9), (7, 8, 9)), ("L", 7, (7, 7, 7)), ("1", 0, (0, 0, 0))])
def test_a_colour_declared_transparent_is_white(mode, key, shown):
    image = Image.new(mode, (4, 4), key)
    np.testing.assert_array_equal(plain(saved(image, "PNG"))[0, 0], shown)
    assert (plain(saved(image, "PNG", transparency=key)) == 255).all()


def test_a_gifs_transparent_ground_is_white():
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 4, 8))
    shown = plain(saved(image, "GIF"))
    assert shown[0, 1].tolist() == [255, 0, 0]
    assert shown[0, 6].tolist() == [255, 255, 255]


def test_grey_is_the_same_in_all_three_channels(pixels):
    grey = pixels(20, 30, channels=1)
    np.testing.assert_array_equal(plain(saved(Image.fromarray(grey), "PNG")), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize(
    ("inks", "colour"),
    [((0, 0, 0, 0), (255, 255, 255)), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0)), ((255, 0, 0, 0), (0, 255, 255))],
)
def test_cmyk_inks_are_the_colours_they_print(inks, colour, kind):
    image = saved(Image.new("CMYK", (16, 16), inks), kind)
    assert image.mode == "CMYK"
    assert np.abs(crop(image, 8) - np.array(colour)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_shown_by_their_high_byte(kind):
    values = np.linspace(0, 65535, 64 * 16).astype(np.uint16).reshape(16, 64)
    image = saved(Image.fromarray(values), kind)
    assert image.mode.startswith("I")
    shown = plain(image)
    assert np.abs(shown - (values >> 8)[..., None]).max() <= 1
    assert (shown[0, 0].tolist(), shown[-1, -1].tolist()) == ([0] * 3, [255] * 3)
    assert (np.diff(shown[..., 0].ravel()) >= 0).all()


def test_a_dark_sixteen_bit_image_stays_dark():
    values = np.full((4, 4), 300, np.uint16)
    values[0, 0] = 0
    assert plain(saved(Image.fromarray(values), "PNG")).max() <= 2


def test_big_endian_sixteen_bits_are_read():
    values = np.array([[0, 257 * 100, 65535]], np.uint16)
    image = Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes())
    assert plain(image)[0, :, 0].tolist() == [0, 100, 255]


def test_sixteen_bit_images_are_turned_upright_too():
    values = (np.arange(6, dtype=np.uint16) * 257 * 40).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = saved(Image.fromarray(stored(values, 6)), "PNG", exif=exif)
    np.testing.assert_array_equal(plain(image)[..., 0], values // 257)


def test_deep_numbers_are_stretched_from_the_least_to_the_greatest():
    floats = Image.fromarray(np.array([[-3.0, 0.0, 7.0]], np.float32))
    assert plain(floats)[0, :, 0].tolist() == [0, round(3 * 25.5), 255]
    signed = Image.fromarray(np.array([[-10, 0, 10]], np.int32))
    assert plain(signed)[0, :, 0].tolist() == [0, 128, 255]
    flat = Image.fromarray(np.full((2, 2), -1.5, np.float32))
    assert (plain(flat) == 0).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_numbers_that_are_none_do_not_fail():
    for values in ([np.nan, 1.0, 2.0], [np.inf, -np.inf, 0.0], [np.nan] * 3):
        assert crop(Image.fromarray(np.array([values], np.float32)), 8).shape == (8, 8, 3)


def test_one_bit_is_black_and_white():
    image = saved(Image.fromarray(np.array([[True, False, True]])), "PNG")
    assert image.mode == "1"
    assert plain(image)[0].tolist() == [[255] * 3, [0] * 3, [255] * 3]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_its_first_frame(kind):
    frames = [Image.new("RGB", (12, 8), colour) for colour in ("red", "lime", "blue")]
    image = saved(frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {}))
    assert image.n_frames == 3
    assert crop(image, 8)[4, 4].tolist() == [255, 0, 0]


def test_an_image_is_not_changed_by_looking_at_it(pixels):
    image = Image.fromarray(pixels(20, 10, channels=4), "RGBA")
    before = image.tobytes()
    crop(image, 8)
    assert (image.mode, image.size, image.tobytes()) == ("RGBA", (20, 10), before)


def test_a_file_cut_short_raises_what_pillow_raises(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels(64, 64)).save(buffer, "JPEG")
    with pytest.raises(OSError, match="truncated"):
        crop(Image.open(io.BytesIO(buffer.getvalue()[:900])), 16)


def test_workers_that_decode_need_no_torch():
    code = "import sys, ugrie.vision.preprocess; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
