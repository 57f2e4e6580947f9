"""Members of .tar files that were joined, compressed, or made to take memory."""

import io
import re
import tarfile

import pytest

from pipeline.sources.tar_headers import MAX_HEADER, members


def archive(*names, **settings) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **settings) as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def listed(data: bytes) -> list[str]:
    return [member.name for member in members(io.BytesIO(data))]


def test_all_of_several_archives_in_one_file_are_read():
    data = archive("a.jpg") + archive("b.jpg", "c.jpg") + bytes(512 * 5000) + archive("d.jpg")
    assert listed(data) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_what_follows_an_archive_and_is_none_is_an_error():
    data = archive("a.jpg")
    with pytest.raises(tarfile.ReadError, match=f"cut off or broken at byte {len(data)}"):
        listed(data + b"?" * 512)


@pytest.mark.parametrize(("mode", "name"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_a_compressed_archive_says_so_and_what_to_do(mode, name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(tarfile.ReadError, match=f"compressed with {name}, and .* repack it as a plain .tar"):
        listed(buffer.getvalue())


def test_a_member_whose_name_begins_like_a_compressed_file_is_one_like_any_other():
    assert listed(archive("BZh.jpg")) == ["BZh.jpg"]


class Endless(io.RawIOBase):
    """A header, followed by zeros without end; counts the bytes that are read of them."""

    def __init__(self, header: bytes):
        self.header, self.place, self.bytes_read = header, 0, 0

    def read(self, size=-1):
        assert 0 <= size <= 2**21
        data = self.header[self.place :][:size].ljust(size, b"\0")
        self.place += size
        self.bytes_read += size
        return data

    def seek(self, place, whence=0):
        self.place = place
        return place

    def tell(self):
        return self.place


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_of_gigabytes_is_refused_before_it_is_read(kind):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 2**31
    file = Endless(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(tarfile.ReadError, match=f"the header at byte 0 has 2147483648 bytes, more than {MAX_HEADER}"):
        list(members(file))
    assert file.bytes_read < 10_000


def test_attributes_of_a_whole_archive_do_not_pile_up():
    data = b"".join(archive(format=tarfile.PAX_FORMAT, pax_headers={f"key{i}": "x" * 1000})[:1536] for i in range(100))
    with pytest.raises(tarfile.ReadError, match="attributes of the whole archive"):
        listed(data + archive("a.jpg"))


def test_a_long_name_is_read_and_a_sparse_member_refused():
    assert listed(archive("x" * 5000 + ".jpg", format=tarfile.PAX_FORMAT)) == ["x" * 5000 + ".jpg"]
    info = tarfile.TarInfo("a.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(tarfile.ReadError, match=re.escape("a.jpg is a sparse file")):
        listed(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
