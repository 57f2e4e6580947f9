"""Names of files that can't be decoded, by their first bytes, each with the remedy where there is one."""

import re
import struct

HEIF_EXTRA = "install ugrie[heif]"
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"miaf")
BRANDS = dict.fromkeys(HEIF_BRANDS, "a HEIC or HEIF image") | {
    b"avif": "an AVIF image",
    b"avis": "an AVIF sequence",
    b"crx ": "a Canon CR3 raw photo",
    b"qt  ": "a QuickTime video",
    b"jxl ": "a JPEG XL image",
}
AT_START = {
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL image",
    b"\xff\xd8\xff": "a JPEG",
    b"\x89PNG\r\n\x1a\n": "a PNG",
    b"GIF8": "a GIF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000 image",
    b"BM": "a BMP",
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer, not the file itself: run git lfs pull",
    b"%PDF-": "a PDF document",
    b"%!PS": "a PostScript document",
    b"\xc5\xd0\xd3\xc6": "a PostScript document",
    b"8BPS": "a Photoshop document (PSD)",
    b"gimp xcf": "a GIMP document (XCF)",
    b"PK\x03\x04": "a zip archive, or an Office document",
    b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "gzip data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ\0": "xz data",
    b"\x28\xb5\x2f\xfd": "Zstandard data",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"PAR1": "a Parquet table",
    b"\x1a\x45\xdf\xa3": "a WebM or Matroska video",
    b"\0\0\x01\xba": "an MPEG video",
    b"\0\0\x01\xb3": "an MPEG video",
    b"FLV\x01": "a Flash video",
    b"ID3": "MP3 audio",
    b"OggS": "an Ogg file",
    b"fLaC": "FLAC audio",
    b"FUJIFILMCCD-RAW": "a Fujifilm raw photo",
    b"FOVb": "a Sigma raw photo",
    b"II*\0\x10\0\0\0CR": "a Canon CR2 raw photo",
    b"IIRO": "an Olympus raw photo",
    b"IIRS": "an Olympus raw photo",
    b"IIU\0": "a Panasonic raw photo",
    b"II\xbc": "a JPEG XR image",
    b"v/1\x01": "an OpenEXR image",
    b"#?RADIANCE": "a Radiance HDR image",
    b"DDS ": "a DirectDraw texture (DDS)",
    b"qoif": "a QOI image",
    b"AT&TFORM": "a DjVu document",
    b"SIMPLE  =": "a FITS image",
    b"\xd7\xcd\xc6\x9a": "a Windows metafile",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}
RIFF = {b"AVI ": "an AVI video", b"WAVE": "WAV audio", b"WEBP": "a WebP image"}
TEXTS = {
    rb"<svg[\s>]": "an SVG drawing",
    rb"<!doctype html|<html[\s>]|<head[\s>]|<body[\s>]": "an HTML page, as a server sends with an error or a login",
    rb"<\?xml|<error>": "an XML document, as a storage sends with an error",
    rb"[{\[]": "JSON text, as a server sends with an error",
}
START = 1024  # bytes in which a text's first tag is looked for
TIFF = {b"II*\0": "<", b"MM\0*": ">"}
BITS_PER_SAMPLE, COMPRESSION, SAMPLES, SAMPLE_FORMAT, MAKE, DNG_VERSION = 258, 259, 277, 339, 271, 50706
NUMBERS = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "untyped", 5: "complex", 6: "complex"}
MAX_TAGS = 512


def is_heif(data: bytes) -> bool:
    """Return whether the bytes begin as a HEIC or HEIF image. An AVIF may begin as one too, and names itself further on."""
    return _brand(data) in HEIF_BRANDS and b"avif" not in data[: int.from_bytes(data[:4], "big")][:START]


def kind_of(data: bytes) -> str | None:
    """Return what a file is that can't be decoded, in words; None if it is not known."""
    if data[4:8] == b"ftyp":
        return BRANDS.get(_brand(data), "an MP4 video, or another file of its kind")
    if data[:4] == b"RIFF":
        return RIFF.get(data[8:12])
    if data[:4] in TIFF and not data.startswith(b"II*\0\x10\0\0\0CR"):
        return _tiff(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    for signature, name in AT_START.items():
        if data.startswith(signature):
            return name
    if data[257:262] == b"ustar":
        return "a tar archive"
    text = data[:START].removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, name in TEXTS.items():
        found = re.search(pattern, text, re.IGNORECASE) if text[:1] == b"<" else re.match(pattern, text)
        if found:
            return name
    return None


def _brand(data: bytes) -> bytes:
    return data[8:12] if data[4:8] == b"ftyp" else b""


def _jpeg(data: bytes) -> str:
    """Name a JPEG by what its frame header states, where that is rare."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, channels = data[at + 4], data[at + 9]
            if marker in (0xC3, 0xC7, 0xCB, 0xCF):
                return "a lossless JPEG"
            return (
                f"a JPEG of {bits} bits a sample" if bits != 8 else "a JPEG" if channels in (1, 3, 4) else f"a JPEG of {channels} channels"
            )
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return "a JPEG"


def _tiff(data: bytes) -> str:
    """Name a TIFF by its kind of samples. Raw photos of most cameras are TIFFs too."""
    tags = _tiff_tags(data)
    if DNG_VERSION in tags:
        return "a DNG raw photo"
    make = bytes(value for value in tags.get(MAKE, ()) if 0 < value < 256)
    for camera in (b"NIKON", b"SONY", b"PENTAX", b"Canon", b"EPSON", b"SAMSUNG", b"Hasselblad", b"Phase One"):
        if make.startswith(camera) and (tags.get(COMPRESSION) or (1,))[0] not in (1, 5, 7, 8):
            return f"a raw photo of a {camera.decode()} camera"
    bits = tags.get(BITS_PER_SAMPLE)
    if not bits:
        return "a TIFF"
    number = NUMBERS.get((tags.get(SAMPLE_FORMAT) or (1,))[0], "unknown")
    samples = (tags.get(SAMPLES) or (len(bits),))[0]
    return f"a TIFF of {samples} x {bits[0]}-bit {number} samples"


def _tiff_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Read the numbers and characters of a TIFF's first directory, as far as they can be read."""
    order, sizes = TIFF[data[:4]], {1: "B", 2: "B", 3: "H", 4: "I"}
    tags: dict[int, tuple[int, ...]] = {}
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for at in range(start + 2, start + 2 + 12 * min(count, MAX_TAGS), 12):
            tag, kind, values = struct.unpack_from(order + "HHI", data, at)
            if kind in sizes and values <= 64:
                layout = order + str(values) + sizes[kind]
                place = at + 8 if struct.calcsize(layout) <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
                tags[tag] = struct.unpack_from(layout, data, place)
    except struct.error:  # a file that is cut off
        pass
    return tags
