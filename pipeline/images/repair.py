"""Mends bytes that a decoder refuses although their pixels are whole, as browsers do.

White space before the first byte (a script's output), a JPEG that lacks only its last bytes, a PNG whose metadata is broken or too
large. Pixels are never made up: a JPEG that lacks more than a part of its last row of blocks stays refused.
"""

import zlib
from collections.abc import Iterator
from io import BytesIO

from PIL import Image, PngImagePlugin

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
SHOWN = (b"iCCP", b"tRNS", b"eXIf")  # further chunks of a PNG that change what a person sees
END_OF_IMAGE = b"\xff\xd9"
FILLER = b"\0" + bytes(range(1, 250, 7)) * 4  # of entropy-coded data, without markers
LAST_ROWS = 16 + 2  # a row of blocks, and what smoothing colours spreads above it
LEAST_ROWS = 10 * LAST_ROWS  # of an image that may lack a part of them
STRIP_ROWS = 64


def repaired(data: bytes) -> Iterator[bytes]:
    """Yield mended versions of a file that can't be decoded, the least changed first; none if there is nothing to mend."""
    start = data.removeprefix(BYTE_ORDER_MARK).lstrip(b" \t\r\n")
    if start != data:
        yield start
    if start.startswith(PNG):
        yield _png(start, CRITICAL + SHOWN)
        yield _png(start, CRITICAL)
    elif start.startswith(JPEG) and not start.endswith(END_OF_IMAGE) and _lacks_only_its_end(start):
        yield start + END_OF_IMAGE


def _png(data: bytes, kept: tuple[bytes, ...]) -> bytes:
    """Return a PNG with these kinds of chunks. Those that are not critical are left out if they are damaged or too large."""
    parts, at = [PNG], len(PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name, body = data[at + 4 : at + 8], data[at + 8 : end - 4]
        if end > len(data) or name in CRITICAL or (name in kept and _is_sound(name, body, data[end - 4 : end])):
            parts.append(data[at:end])
        at = end
    return b"".join(parts)


def _is_sound(name: bytes, body: bytes, checksum: bytes) -> bool:
    if zlib.crc32(name + body) != int.from_bytes(checksum, "big"):
        return False
    if name != b"iCCP":
        return True
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(body[body.index(b"\0") + 2 :], PngImagePlugin.MAX_TEXT_CHUNK)
    except (ValueError, zlib.error):
        return False
    return not inflater.unconsumed_tail


def _lacks_only_its_end(data: bytes) -> bool:
    """Return whether all pixels of a JPEG without its end are there, but for a part of the last row of blocks.

    Its data are continued in two ways. Pixels that come out the same do not depend on what is missing.
    """
    if not _has_all_scans(data):
        return False
    try:
        return _checksum(data + END_OF_IMAGE) == _checksum(data + FILLER + END_OF_IMAGE)
    except MemoryError:
        raise
    except Exception:  # decoders raise anything
        return False


def _checksum(data: bytes) -> int:
    """Return a checksum of a JPEG's pixels above its last row of blocks, or of all pixels of a small one."""
    checksum = 0
    with Image.open(BytesIO(data), formats=["JPEG"]) as image:
        rows = image.height - (LAST_ROWS if image.height >= LEAST_ROWS else 0)
        for top in range(0, rows, STRIP_ROWS):
            checksum = zlib.crc32(image.crop((0, top, image.width, min(top + STRIP_ROWS, rows))).tobytes(), checksum)
    return checksum


def _has_all_scans(data: bytes) -> bool:
    """Return whether a JPEG's scans state every coefficient of every component to its last bit. Progressive ones have many scans."""
    components: bytes = b""
    precise: dict[int, set[int]] = {}
    at = data.find(b"\xff", 2)
    while 0 <= at < len(data) - 3:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD9:  # of no length: within a scan, or padding
            at = data.find(b"\xff", at + (1 if marker == 0xFF else 2))
            continue
        body = data[at + 4 : at + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) > 6:
            components = body[6::3]
            precise = {component: set() for component in components}
        elif marker == 0xDA and body and len(body) >= 4 + 2 * body[0]:
            first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            for component in body[1 : 1 + 2 * body[0] : 2]:
                if bits & 15 == 0:
                    precise.setdefault(component, set()).update(range(first, min(last, 63) + 1))
        at = data.find(b"\xff", at + 2 + max(length, 2))
    return bool(precise) and all(len(coefficients) == 64 for coefficients in precise.values())
