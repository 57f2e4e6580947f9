"""Images in .tar shards. Members named like images are images: WebDataset keeps labels beside them, under the same name."""

import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

import fsspec

from pipeline.errors import UserError
from pipeline.inputs.item import Item, escaped
from pipeline.storage.files import open_file
from pipeline.storage.listing import File
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import without_secrets

THREADS = 8  # shards read at once
READ_AHEAD = 8 * 2**20  # bytes per shard
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".ico")


def tar_items(fs: fsspec.AbstractFileSystem, shards: Iterable[File]) -> Iterator[Item]:
    """List the images of several shards, in their order. Raises UserError for a shard that is broken, after the images before it."""
    return chain.from_iterable(parallel_map(lambda shard: list(_members(fs, shard)), shards, THREADS))


def _members(fs: fsspec.AbstractFileSystem, shard: File) -> Iterator[Item]:
    uri = without_secrets(fs.unstrip_protocol(shard.name))
    try:
        with open_file(fs, shard.name, shard.info, ahead=READ_AHEAD) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            seen: Counter[str] = Counter()
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every member in memory
                if member.isfile() and member.name.lower().endswith(SUFFIXES):
                    if member.issparse():
                        raise tarfile.ReadError(f"{escaped(member.name)} is a sparse file: repack the shard without --sparse")
                    name = escaped(member.name.removeprefix("./"))
                    seen[name] += 1
                    if seen[name] > 1:  # a .tar may hold several files of the same name
                        name += f"#{seen[name]}"
                    yield Item(f"{uri}!/{name}", member.size, shard.version, shard.name, member.offset_data)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile stops silently at a broken header
                raise tarfile.ReadError(f"it is cut off or broken at byte {tar.offset}")
    except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:  # the latter three: negative or absurd sizes in a header
        raise UserError(f"{uri} is not a readable .tar: {str(error) or type(error).__name__}") from None
