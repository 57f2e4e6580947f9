"""The members of a .tar, one after the other, within bounds of memory, and without losing any of them silently."""

import tarfile
from collections.abc import Iterator
from typing import IO, Any

MAX_HEADER = 2**20  # bytes of a member's long name or extended attributes
MAX_GLOBAL = 2**16  # characters of the attributes that hold for a whole archive
CHUNK = 2**20  # bytes of padding read at once
# Compressed files by their first bytes. Their members have no place that could be read by itself.
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
REMEDY = "a compressed shard can't be read at random: unpack it, or repack it as a plain .tar"


def members(file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a .tar, and of others that were appended to it as they are (`cat a.tar b.tar`).

    Raises tarfile's errors, ValueError, OverflowError, MemoryError and RecursionError where the file is no .tar, is broken, or has
    sparse members.
    """
    with _open(file) as archive:
        while True:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every member in memory
                if member.issparse():
                    raise _sparse(member)
                yield member
            following = _end_of_zeros(file, archive.offset)
            if following is None:
                return
            if following == archive.offset:  # tarfile stops silently at a broken header, as at the zeros that end an archive
                raise tarfile.ReadError(f"it is cut off or broken at byte {following}")
            archive.offset = following


def _open(file: IO[bytes]) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=file, mode="r:", tarinfo=_Header)
    except tarfile.ReadError:
        file.seek(0)
        start = file.read(8)
        for magic, name in COMPRESSED.items():
            if start.startswith(magic):
                raise tarfile.ReadError(f"it is compressed with {name}, and {REMEDY}") from None
        raise


class _Header(tarfile.TarInfo):
    """A member's header. What belongs to it is bounded before it is read, since tarfile reads it whole."""

    def _proc_member(self, archive: Any) -> tarfile.TarInfo:
        extended = self.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if (extended or self.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)) and self.size > MAX_HEADER:
            raise tarfile.ReadError(f"the header at byte {self.offset} has {self.size} bytes, more than {MAX_HEADER}")
        if self.type == tarfile.GNUTYPE_SPARSE:  # its map may be of any length
            raise _sparse(self)
        if sum(len(name) + len(value) for name, value in archive.pax_headers.items()) > MAX_GLOBAL:
            raise tarfile.ReadError(f"the attributes of the whole archive have more than {MAX_GLOBAL} characters")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_gnusparse_10(self, member: tarfile.TarInfo, headers: dict[str, str], archive: Any) -> None:
        raise _sparse(member)


def _sparse(member: tarfile.TarInfo) -> tarfile.ReadError:
    name = member.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return tarfile.ReadError(f"{name} is a sparse file: repack the shard without --sparse")


def _end_of_zeros(file: IO[bytes], start: int) -> int | None:
    """Return the first block from `start` on that is not all zeros; None if there is none."""
    file.seek(start)
    while chunk := file.read(CHUNK):
        if rest := chunk.lstrip(b"\0"):
            return start + (len(chunk) - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        start += len(chunk)
    return None
