"""Pieces of an input, each of which a task lists: some folders or ranges of keys, some files that hold images, or a file of embeddings."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, groupby

import fsspec

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.inputs.file_listing import FileListing, Place
from pipeline.inputs.kinds import IMAGE, PARQUET, SHARD, kind_of
from pipeline.planning.part import Notes, Part, PartWriter
from pipeline.sources.data_file import DataFile
from pipeline.sources.embeddings import EmbeddedRuns, embedded_rows
from pipeline.sources.parquet_table import divided
from pipeline.sources.source import image_items, items_in, no_images, open_source, readable
from pipeline.storage.filesystem import Options, connect
from pipeline.storage.left_out import LeftOut
from pipeline.storage.listing import File, Folder, Walk
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import without_secrets
from pipeline.table.kept_columns import Keep
from pipeline.table.output_folder import OutputFolder

ROWS = 2**20  # of a large Parquet file, listed by a task
BYTES = 64 * 2**20  # of files listed by a task, unless it is one; only the headers of shards are read, but one after another
SHARDS = 16  # listed by a task
FILES = 256  # tables listed by a task
THREADS = 32  # footers read at once
MOST_LISTED = 500_000  # files of folders that a task lists before it hands on what is left


@dataclass(frozen=True)
class Folders:
    """Folders, or ranges of their keys, that follow each other. `place` is what the input names: they are below it."""

    place: Place
    folders: tuple[Folder, ...]

    def divided(self, most: int) -> list["Folders"]:
        """Divide them into so many pieces at most."""
        size = -(-len(self.folders) // most)
        return [replace(self, folders=self.folders[i : i + size]) for i in range(0, len(self.folders), size)]


@dataclass(frozen=True)
class SingleFile:
    """An image that the input names: all of a place, or one of those that braces stand for."""

    place: Place


@dataclass(frozen=True)
class Files:
    """Shards, or tables, or ranges of their row groups, of a `kind`."""

    kind: str
    files: tuple[DataFile, ...]


@dataclass(frozen=True)
class Embedded:
    """A file of a table with the embeddings of a run."""

    file: str
    run_id: str


Piece = Folders | SingleFile | Files | Embedded


@dataclass(frozen=True)
class Division:
    """An input, divided: the URI of the storage that its files are in, its pieces in order, and what is said where they hold no image.

    `left_out` counts by reason what was left out on the way, `skip` are folders that are not listed.
    """

    storage: str
    pieces: Iterator[Piece]
    nothing_found: Callable[[], UserError]
    nothing_below: Callable[[Place], UserError] | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    skip: tuple[str, ...] = ()


def divide(config: AnnotateConfig, tower: str) -> Division:
    """Divide a run's input into pieces; `tower` is the digest of its image tower. Raises UserError, as listing it does."""
    if config.from_embeddings:
        source = EmbeddedRuns.of(config.input, tower, config.storage_options, Keep())
        return Division(source.output.uri, (Embedded(file, run_id) for file, run_id in source.files()), source.nothing_found)
    left_out: Counter[str] = Counter()
    opened = open_source(config.input, config.column, config.storage_options, left_out, config.output)
    listing = opened.listing
    if opened.kind == IMAGE:
        left_out.clear()  # what was listed to see that there are images is listed again
        pieces = _of_places(listing, listing.places(opened.path, config.input.endswith("/")))
    else:
        pieces = _of_files(listing, opened.kind, opened.files)
    return Division(opened.place, pieces, lambda: no_images(listing), listing.nothing_found, left_out, listing.skip)


def _of_places(listing: FileListing, places: Iterator[Place]) -> Iterator[Piece]:
    with listing.listable():
        for place in places:
            folder = place.folder
            yield SingleFile(place) if folder is None else Folders(place, (Folder.at(listing.fs, folder, place.levels),))


def _of_files(listing: FileListing, kind: str, files: Iterable[DataFile]) -> Iterator[Piece]:
    """Yield pieces of some files, or of some row groups of large ones."""
    most = SHARDS if kind == SHARD else FILES

    def ranges(data: DataFile) -> list[DataFile]:
        large = (data.file.size or 0) > BYTES and (data.columns is not None or kind_of(data.file.name) == PARQUET)
        return divided(listing.fs, data, ROWS) if large else [data]

    with readable(listing):
        some: list[DataFile] = []
        for data in chain.from_iterable(parallel_map(ranges, files, THREADS)):
            if some and (len(some) == most or data.groups is not None or sum(each.file.size or 0 for each in some) > BYTES):
                yield Files(kind, tuple(some))
                some = []
            some.append(data)
        if some:
            yield Files(kind, tuple(some))


@dataclass(frozen=True)
class PieceLister:
    """Lists pieces of an input whose files are in `storage`, and writes what it finds as parts.

    `column` is that of a table's URIs or image bytes.
    """

    uri: str
    storage: str
    options: Options = field(repr=False)
    column: str
    writer: PartWriter
    skip: tuple[str, ...] = ()

    def __call__(self, piece: Piece, most: int = MOST_LISTED) -> list[Part | Folders]:
        """List a piece. Return its parts, in order; of folders with more than `most` files also those that are left.

        Raises UserError, StorageError.
        """
        if isinstance(piece, Embedded):
            return list(self.writer.write(embedded_rows(OutputFolder(self.storage, self.options), piece.file, Keep(), piece.run_id)))
        fs, _ = connect(self.storage, self.options)
        listing = FileListing(fs, without_secrets(self.uri), self.options, Counter(), self.skip)
        with readable(listing):
            if isinstance(piece, Files):
                left_out: Counter[str] = Counter()
                parts = list(self.writer.write(items_in(fs, piece.kind, piece.files, self.column, left_out, Keep())))
                return [*parts, Part(notes=Notes(files=True, left_out=left_out))]
            with listing.listable():
                if isinstance(piece, SingleFile):
                    return list(self._images(fs, piece.place, [[piece.place.file] if piece.place.file else []]))
                return list(self._below(fs, piece, most))

    def _below(self, fs: fsspec.AbstractFileSystem, piece: Folders, most: int) -> Iterator[Part | Folders]:
        walk = Walk(fs, piece.folders, len((piece.place.folder or "").rstrip("/")), self.skip)
        found = iter(walk)
        left: list[list[File | LeftOut] | Folder] = []

        def first() -> Iterator[list[File | LeftOut]]:
            listed = 0
            with suppress(FileNotFoundError):  # there is no such folder
                for some in found:
                    yield some
                    listed += len(some)
                    if listed >= most:
                        left.extend(walk.rest())

        try:
            yield from self._images(fs, piece.place, first())
        finally:
            found.close()  # type: ignore[attr-defined]
        for are_folders, parts in groupby(left, lambda part: isinstance(part, Folder)):
            if are_folders:
                yield replace(piece, folders=tuple(part for part in parts if isinstance(part, Folder)))
            else:
                yield from self._images(fs, piece.place, (part for part in parts if isinstance(part, list)))

    def _images(self, fs: fsspec.AbstractFileSystem, place: Place, found: Iterable[list[File | LeftOut]]) -> Iterator[Part]:
        """Write the images among what was found. The last part has no rows, and says what else there was."""
        notes = Notes()

        def files() -> Iterator[File]:
            for each in chain.from_iterable(found):
                if isinstance(each, File):
                    yield each
                else:
                    notes.leave_out(each)

        def matching() -> Iterator[File]:
            for file in place.matching(files()):
                notes.files = True
                yield file

        yield from self.writer.write(image_items(fs, notes.images.take(matching())))
        yield Part(notes=notes)
