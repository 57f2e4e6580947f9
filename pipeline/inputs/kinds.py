"""Kinds of files, recognised by their names: images, shards, tables, and files that are none of these.

A folder may hold millions of files, so no file is opened to find out what it is.
"""

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from pipeline.errors import UserError
from pipeline.inputs.item import escaped
from pipeline.storage.listing import File
from pipeline.storage.uris import without_secrets

IMAGE, SHARD, PARQUET, OTHER = "image", "shard", "Parquet", "other"
TABLES = {".parquet": PARQUET, ".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines", ".txt": "text"}
COMPRESSED = (".gz", ".zst")  # of a table of text
LISTS = "text"  # one URI a line; beside other kinds it is a document
READ = (
    "what is read: images, .tar shards, and tables (.parquet, .csv, .tsv, .jsonl, .ndjson, or .txt with one URI a line; "
    "all but Parquet also as .gz or .zst)"
)

# All names of the formats that are decoded, and no suffix at all.
IMAGE_SUFFIXES = {
    *("", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".avifs", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".ico", ".tga", ".icb", ".vda", ".vst"),
}

_ARCHIVES = frozenset((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".tgz", ".tbz2", ".txz"))
_DOCUMENTS = (
    ".md",
    ".rst",
    ".json",
    ".yaml",
    ".yml",
    ".toml",
    ".xml",
    ".html",
    ".htm",
    ".css",
    ".js",
    ".cff",
    ".bib",
    ".ini",
    ".cfg",
    ".log",
)
_NOTES = (".log", ".metadata", ".lock", ".idx", ".index", ".md5", ".sha1", ".sha256", ".sha512", ".crc", ".sig", ".asc", ".db")
_PROGRAMS = (".py", ".pyc", ".ipynb", ".sh", ".bat", ".sql")
_DATA = (".arrow", ".feather", ".orc", ".avro", ".xlsx", ".xls", ".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth", ".safetensors")
_DATABASES = (".h5", ".hdf5", ".mat", ".sqlite", ".tfrecord")
_OTHERS = _ARCHIVES.union(_DOCUMENTS, _NOTES, _PROGRAMS, _DATA, _DATABASES)
_CODE_FILES = ("makefile", "dockerfile", ".gitattributes", ".gitignore", ".gitkeep", ".ds_store")
_OTHER_NAMES = frozenset(("readme", "license", "licence", "notice", "authors", "changelog", *_CODE_FILES))


def choose(files: Iterator[File], left_out: Counter[str]) -> tuple[str, Iterator[File]]:
    """Return the kind of a source and its files of this kind: images if there are any, else shards, else tables.

    Adds to `left_out` how many files are of other kinds, by the end of their names. Shards and tables are held back until it is known
    that there is no image; other files are only counted. Raises UserError where there are tables of several kinds, or nothing to read.
    """
    held: dict[str, list[File]] = {}
    for file in files:
        kind = kind_of(file.name)
        if kind == IMAGE:
            return IMAGE, _images(chain([file], files), list(chain.from_iterable(held.values())), left_out)
        if kind == OTHER:
            left_out[_ending(file)] += 1
        else:
            held.setdefault(kind, []).append(file)
    if not held:
        raise UserError(f"it holds only files that are not read ({_shown(left_out)}); {READ}; archives must be unpacked")
    kind = SHARD if SHARD in held else next((kind for kind in held if kind != LISTS), LISTS)
    chosen = held.pop(kind)
    tables = [kind for kind in held if kind != LISTS]
    if kind != SHARD and tables:
        raise UserError(
            f"there are tables of several kinds, such as {_public(chosen[0])} and {_public(held[tables[0]][0])}: "
            f"select one kind by a glob, such as --input '…/*{suffix_of(chosen[0].name)}'"
        )
    left_out.update(_ending(file) for file in chain.from_iterable(held.values()))
    return kind, iter(chosen)


@dataclass
class ImageFiles:
    """Takes the images among files, in the order of the listing, and notes in `left_out` what is beside them, by the end of its name.

    `first` is the first image, `unread` the first shard or table, and `named` whether an image has a name that tells that it is one.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    first: File | None = None
    unread: File | None = None
    named: bool = False

    def take(self, files: Iterable[File]) -> Iterator[File]:
        """Yield the images among the files."""
        for file in files:
            kind = kind_of(file.name)
            if kind == IMAGE:
                self.first = self.first or file
                self.named = self.named or suffix_of(file.name) in IMAGE_SUFFIXES
                yield file
            else:
                self.left_out[_ending(file)] += 1
                if kind not in (OTHER, LISTS):
                    self.unread = self.unread or file

    def add(self, later: "ImageFiles") -> None:
        """Add what was noted of the files that follow."""
        self.left_out.update(later.left_out)
        self.first, self.unread, self.named = self.first or later.first, self.unread or later.unread, self.named or later.named

    def check(self) -> None:
        """Raise UserError if shards or tables would be left out for files whose names tell nothing."""
        if self.unread is not None and self.first is not None and not self.named:
            raise UserError(
                f"{_public(self.unread)} is beside {_public(self.first)}, whose name is not known: "
                f"select the files to read by a glob, such as --input '…/*{suffix_of(self.unread.name)}'; {READ}"
            )


def _images(files: Iterator[File], held: list[File], left_out: Counter[str]) -> Iterator[File]:
    """Return the images, of which there are some. Raises UserError at the end, as `ImageFiles.check` does."""
    images = ImageFiles(left_out)
    yield from images.take(chain(held, files))
    images.check()


def _ending(file: File) -> str:
    return suffix_of(file.name) or posixpath.basename(file.name).lower()


def _shown(endings: Counter[str]) -> str:
    most = [f"{count} {ending}" for ending, count in endings.most_common(5)]
    return ", ".join(most + ["…"] * (len(endings) > len(most)))


def _public(file: File) -> str:
    return escaped(without_secrets(posixpath.basename(file.name)))


def suffix_of(name: str) -> str:
    """Return the end of a file's name that tells its kind, in lower case: `.jpg`, `.csv.gz`, or '' if there is none."""
    name = name.partition("?")[0] if "://" in name else name  # a link
    base, suffix = posixpath.splitext(posixpath.basename(name).lower())
    if suffix in _ARCHIVES:
        inner = posixpath.splitext(base)[1]
        return f"{inner}{suffix}" if inner in TABLES or inner == ".tar" else suffix
    return suffix


def kind_of(name: str) -> str:
    """Return IMAGE, SHARD, OTHER or one of TABLES's kinds. What has no telling name is taken for an image."""
    suffix = suffix_of(name)
    table = suffix
    for compressed in COMPRESSED:
        table = table.removesuffix(compressed)
    if table in TABLES and (table == suffix or table != ".parquet"):
        return TABLES[table]
    if suffix == ".tar":
        return SHARD
    known = posixpath.splitext(suffix)[1] or suffix
    return OTHER if known in _OTHERS or posixpath.basename(name).lower() in _OTHER_NAMES else IMAGE
