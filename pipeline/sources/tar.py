"""Images in .tar shards. Members named like images are images: WebDataset keeps labels beside them, under the same name.

Columns to keep are keys of a sample's `.json`: the member whose name differs from the image's only after the first dot.
"""

import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, NamedTuple

import fsspec
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.inputs.item import Item, Kept, escaped
from pipeline.inputs.kinds import IMAGE_SUFFIXES
from pipeline.sources.data_file import DataFile
from pipeline.sources.tar_headers import members
from pipeline.sources.text_table import json_object, kept_texts
from pipeline.storage.files import open_file
from pipeline.storage.left_out import DEAD_LINK, MARKER, NOT_BY_NAME, SPECIAL, marker
from pipeline.storage.listing import File
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import without_secrets
from pipeline.table.kept_columns import Keep

THREADS = 8  # shards read at once
MAX_JSON = 2**20  # bytes of a sample's .json
READ_AHEAD = 8 * 2**20  # bytes per shard


class _Place(NamedTuple):
    """Where a member's bytes are."""

    position: int
    size: int


def tar_items(fs: fsspec.AbstractFileSystem, shards: Iterable[DataFile], left_out: Counter[str], keep: Keep) -> Iterator[Item]:
    """List the images of several shards, in their order, and count in `left_out` the members that are none.

    An image without a `.json` has null in the columns to keep.

    Raises UserError for a shard that is broken, after the images before it.
    """
    for items, others in parallel_map(lambda shard: _list_shard(fs, shard, keep), shards, THREADS):
        left_out.update(others)
        yield from items


def _list_shard(fs: fsspec.AbstractFileSystem, data: DataFile, keep: Keep) -> tuple[list[Item], Counter[str]]:
    """Return a shard's images, those that links name at the end, and the counts of its other members by reason."""
    shard, columns = data.file, data.read(keep)
    uri = without_secrets(fs.unstrip_protocol(shard.name))
    if keep:
        keep.note(data.given)
    left_out: Counter[str] = Counter()
    names: Counter[str] = Counter()
    links: list[tarfile.TarInfo] = []
    items: list[Item] = []
    samples: list[str] = []  # of each image, the key that it shares with its .json
    found: dict[str, list[str | None]] = {}  # by key, the values to keep

    def add(name: str, place: _Place) -> None:
        samples.append(_sample(name))
        names[name := escaped(name.removeprefix("./"))] += 1
        if names[name] > 1:  # a .tar may hold several files of the same name
            name += f"#{names[name]}"
        items.append(Item(f"{uri}!/{name}", place.size, shard.version, shard.name, place.position))

    try:
        for member, file in _members(fs, shard):
            if columns and member.isreg() and member.name.lower() == f"{_sample(member.name).lower()}.json":
                found[_sample(member.name)] = _kept(file, member, f"{uri}!/{escaped(member.name)}", keep, columns)
            if member.issym() or member.islnk():
                links.append(member)
            elif (reason := _reason(member)) is not None:
                left_out[reason] += 1
            elif not member.isdir():
                add(member.name, _Place(member.offset_data, member.size))
        places = _follow((member for member, _ in _members(fs, shard)), links) if links else {}
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError) as error:  # absurd sizes and chains of headers, too
        raise UserError(f"{uri} is not a readable .tar: {str(error) or type(error).__name__}") from None
    for link in links:
        reason = _reason(link) or (None if link.offset in places else DEAD_LINK)
        if reason is None:
            add(link.name, places[link.offset])
        else:
            left_out[reason] += 1
    if keep and items:
        nothing: list[str | None] = [None] * len(columns)
        values = zip(*(found.get(sample, nothing) for sample in samples), strict=True)
        kept = data.kept(keep, [pa.array(each, pa.string()) for each in values], len(items), uri)
        items = [item._replace(kept=Kept(kept, i)) for i, item in enumerate(items)]
    return items, left_out


def _members(fs: fsspec.AbstractFileSystem, shard: File) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield a shard's members, each with the shard's file."""
    with open_file(fs, shard.name, shard.info, ahead=READ_AHEAD) as file:
        for member in members(file):
            yield member, file


def _sample(name: str) -> str:
    """Return the key that the members of a sample share: the name up to the first dot after its folder."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _kept(file: IO[bytes], member: tarfile.TarInfo, name: str, keep: Keep, columns: Sequence[str]) -> list[str | None]:
    """Read a sample's .json, and return its values to keep."""
    if member.size > MAX_JSON:
        raise UserError(f"{name} has {member.size:,} bytes, more than the {MAX_JSON:,} of a .json that columns are kept of")
    file.seek(member.offset_data)
    try:
        text = file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{name} is not in UTF-8") from None
    return kept_texts(json_object(text, f"{name}: ", "columns are kept of one JSON object"), keep, columns, f"{name}: ")


def _reason(member: tarfile.TarInfo) -> str | None:
    """Return why a member is left out, or None if it is a folder, or an image by its name."""
    if member.isdir():
        return None
    if not (member.isreg() or member.issym() or member.islnk()):
        return SPECIAL
    if marker(f"/{member.name}") is not None:
        return MARKER
    return None if posixpath.splitext(member.name)[1].lower() in IMAGE_SUFFIXES else NOT_BY_NAME


def _follow(archive: Iterable[tarfile.TarInfo], links: list[tarfile.TarInfo]) -> dict[int, _Place]:
    """Return where the files are that links lead to, by the offset of each link's header. Only members of the shard are followed.

    A hard link names an earlier member, a symbolic one any; of several members of one name, it is the last.
    """
    wanted = {_target(link) for link in links}
    places: dict[str, _Place | str] = {}  # of files and of links to them; a symbolic link has the name that it leads to
    found: dict[int, _Place] = {}
    for member in archive:
        name = posixpath.normpath(member.name)
        place: _Place | str | None = _Place(member.offset_data, member.size) if member.isreg() else None
        if member.issym():
            place = _target(member)
        elif member.islnk() and (place := _resolve(_target(member), places)) is not None:
            found[member.offset] = place
        if name in wanted and place is not None:
            places[name] = place
    for link in links:
        if link.issym() and (place := _resolve(_target(link), places)) is not None:
            found[link.offset] = place
    return found


def _target(link: tarfile.TarInfo) -> str:
    """Return the name that a link leads to: that of a symbolic link is relative to its folder."""
    folder = posixpath.dirname(link.name) if link.issym() else ""
    return posixpath.normpath(posixpath.join(folder, link.linkname))


def _resolve(name: str, places: dict[str, _Place | str]) -> _Place | None:
    """Follow symbolic links from a name to a file; None if there is none, or they lead round in a circle."""
    passed: set[str] = set()
    place: _Place | str | None = name
    while isinstance(place, str) and place not in passed:
        passed.add(place)
        place = places.get(place)
    return place if isinstance(place, _Place) else None
