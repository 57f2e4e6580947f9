"""Measures what ICC profiles cost: decoding and cropping photos without a profile, with sRGB, and with Display P3.

    python benchmarks/profiles.py --photos DIR

Uses the photos of a folder as JPEGs (quality 90) of their own size and enlarged to 12 megapixels. The same pixels are written with
each profile, and decoded in turn, in one process on one core.
"""

import argparse
import statistics
import struct
import sys
import time
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from decode import MEGAPIXELS, enlarged
from measure import report
from PIL import Image, ImageCms

from ugrie.vision import preprocess

SIZE = 224
P3 = {b"rXYZ": (0.5151, 0.2412, -0.0011), b"gXYZ": (0.2920, 0.6922, 0.0419), b"bXYZ": (0.1571, 0.0666, 0.7841)}  # adapted to D50


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def display_p3() -> bytes:
    """Return the sRGB profile with the primaries of Display P3: their curves are the same."""
    profile = bytearray(srgb())
    for at in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12):
        name, place, _ = struct.unpack_from(">4sII", profile, at)
        if name in P3:
            struct.pack_into(">3i", profile, place + 8, *(round(value * 65536) for value in P3[name]))
    return bytes(profile)


def measure(files: list[Path], megapixels: float | None) -> dict:
    profiles = {"none": None, "sRGB": srgb(), "Display P3": display_p3()}
    seconds: dict[str, list[float]] = {name: [] for name in profiles}
    for number, file in enumerate(files):
        image = Image.open(file).convert("RGB") if megapixels is None else Image.open(BytesIO(enlarged(file, megapixels)))
        written = {}
        for name, profile in profiles.items():
            buffer = BytesIO()
            image.save(buffer, "JPEG", quality=90, icc_profile=profile)
            written[name] = buffer.getvalue()
        preprocess.crop(Image.open(BytesIO(written["none"])), SIZE)  # to warm up
        for name in sorted(profiles, key=lambda name: (list(profiles).index(name) + number) % len(profiles)):
            clock = time.perf_counter()
            preprocess.crop(Image.open(BytesIO(written[name])), SIZE)
            seconds[name].append(time.perf_counter() - clock)
    added = {
        name: statistics.median(one - none for one, none in zip(times, seconds["none"], strict=True)) for name, times in seconds.items()
    }
    return {
        "photos": len(files),
        "milliseconds": {name: round(1000 * statistics.median(times), 2) for name, times in seconds.items()},
        "milliseconds_added": {name: round(1000 * value, 2) for name, value in added.items() if name != "none"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--megapixels", type=float, default=MEGAPIXELS, help="size of the enlarged photos")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    files = sorted(path for path in args.photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    sizes = {"as published": None, f"{args.megapixels:g} megapixels": args.megapixels}
    report("profiles", {name: measure(files, megapixels) for name, megapixels in sizes.items()}, args.json)


if __name__ == "__main__":
    main()
