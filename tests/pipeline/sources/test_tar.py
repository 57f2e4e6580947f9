"""Listing of .tar shards."""

import io
import os
import tarfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import UserError
from pipeline.images.decode import FORMATS
from pipeline.inputs.kinds import IMAGE_SUFFIXES
from pipeline.sources import source
from pipeline.storage.left_out import DEAD_LINK, MARKER, NOT_BY_NAME, SPECIAL
from tests.plugins.listing import items, kept, names


def test_tar_shards_give_their_images_with_the_bytes_they_lie_at(tmp_path, tar):
    tar(tmp_path / "shard-0.tar", {"./0/a.jpg": b"first", "0/a.json": b"{}", "0/a.txt": b"a cat", "b.PNG": b"second image"})
    tar(tmp_path / "shard-1.tar", {"c.webp": b"third"})
    found = items(tmp_path)
    shard = f"file://{tmp_path}/shard-"
    assert [item.uri for item in found] == [f"{shard}0.tar!/0/a.jpg", f"{shard}0.tar!/b.PNG", f"{shard}1.tar!/c.webp"]
    assert [Path(item.container).read_bytes()[item.position :][: item.size] for item in found] == [b"first", b"second image", b"third"]


def test_several_shards_are_read_at_once_and_not_too_far_ahead(tmp_path, tar, monkeypatch):
    for i in range(30):
        tar(tmp_path / f"{i:02}.tar", {f"{k}.jpg": b"%d" % k for k in range(i % 4 + 1)})
    lock, at_once = threading.Lock(), Counter()

    @contextmanager
    def opened(fs, name, info, ahead):
        with lock:
            at_once["now"] += 1
            at_once["most"] = max(at_once["most"], at_once["now"])
            at_once["ahead"] = max(at_once["ahead"], at_once["now"] * ahead)
        time.sleep(0.02)
        with open(name, "rb") as file:
            yield file
        with lock:
            at_once["now"] -= 1

    monkeypatch.setattr("pipeline.sources.tar.open_file", opened)
    assert names(tmp_path) == [f"{k}.jpg" for i in range(30) for k in range(i % 4 + 1)]
    assert 2 < at_once["most"] <= 8
    assert at_once["ahead"] <= 64 * 2**20


def test_a_member_whose_name_is_no_utf8_is_an_item_like_any_other(tmp_path, tar):
    tar(tmp_path / "x.tar", {os.fsdecode(b"caf\xe9.jpg"): b"1"})
    assert names(tmp_path / "x.tar") == ["caf\\xe9.jpg"]


def listed(uri):
    """Return the names of a shard's images, and the counts of its other members."""
    left_out = Counter()
    found = list(source.list_items(str(uri), "uri", {}, left_out))
    return [item.uri.rpartition("!/")[2] for item in found], dict(left_out)


def test_every_name_of_a_format_that_is_decoded_is_an_images():
    Image.init()
    formats = {*FORMATS, "MPO", "DIB"}  # these two are opened as JPEG and BMP
    assert {suffix for suffix, kind in Image.registered_extensions().items() if kind in formats} <= IMAGE_SUFFIXES


def test_members_that_are_no_images_by_their_names_are_counted(tmp_path, tar):
    tar(tmp_path / "x.tar", dict.fromkeys(("a.jfif", "b.JPE", "c.tga", "d.j2k", "sub/e", "_f.png", "1.json", "1.txt"), b"1"))
    assert listed(tmp_path / "x.tar") == (["a.jfif", "b.JPE", "c.tga", "d.j2k", "sub/e", "_f.png"], {NOT_BY_NAME: 2})
    tar(tmp_path / "x.tar", dict.fromkeys(("a.jpg", "._a.jpg", "__MACOSX/._a.jpg", "./.DS_Store", "_SUCCESS"), b"1"))
    assert listed(tmp_path / "x.tar") == (["a.jpg"], {MARKER: 4})


def linked(path, *entries):
    """Write a .tar of files (name, bytes) and links (name, kind, target)."""
    with tarfile.open(path, "w") as archive:
        for name, *about in entries:
            info = tarfile.TarInfo(name)
            if len(about) == 2:
                info.type, info.linkname = about
            else:
                info.size = len(about[0])
            archive.addfile(info, io.BytesIO(about[0]) if len(about) == 1 else None)


def test_links_within_a_tar_are_images_where_they_lead_to_a_member(tmp_path):
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    linked(
        tmp_path / "x.tar",
        ("early.jpg", soft, "blobs/b.bin"),
        ("blobs/a.bin", b"first"),
        ("hard.jpg", hard, "./blobs/a.bin"),
        ("blobs/b.bin", b"second!"),
        ("sub/soft.jpg", soft, "../chain.jpg"),
        ("chain.jpg", soft, "hard.jpg"),
        ("label.json", soft, "hard.jpg"),
        ("round.jpg", soft, "circle.jpg"),
        ("circle.jpg", soft, "round.jpg"),
        ("nowhere.jpg", hard, "gone.jpg"),
        ("passwd.jpg", soft, "/etc/passwd"),
        ("above.jpg", soft, "../../above.jpg"),
    )
    left_out = Counter()
    found = list(source.list_items(str(tmp_path / "x.tar"), "uri", {}, left_out))
    data = (tmp_path / "x.tar").read_bytes()
    assert {item.uri.rpartition("!/")[2]: data[item.position :][: item.size] for item in found} == {
        "early.jpg": b"second!",
        "hard.jpg": b"first",
        "sub/soft.jpg": b"first",
        "chain.jpg": b"first",
    }
    assert left_out == {NOT_BY_NAME: 3, DEAD_LINK: 5}


def test_folders_and_devices_within_a_tar_are_no_images(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, kind in (("d.jpg", tarfile.DIRTYPE), ("p.jpg", tarfile.FIFOTYPE), ("a.jpg", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            archive.addfile(info, io.BytesIO(b""))
    assert listed(tmp_path / "x.tar") == (["a.jpg"], {SPECIAL: 1})


def test_files_of_one_name_in_a_tar_are_all_read(tmp_path, images):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for seed in (1, 2, 3):
            info = tarfile.TarInfo("a.jpg")
            info.size = len(images.jpeg(seed))
            tar.addfile(info, io.BytesIO(images.jpeg(seed)))
    found = items(tmp_path / "x.tar")
    assert [item.uri.rpartition("!")[2] for item in found] == ["/a.jpg", "/a.jpg#2", "/a.jpg#3"]
    assert len({item.position for item in found}) == 3


def test_a_shard_that_is_broken_is_named_after_those_before_it(tmp_path, tar):
    for i in range(20):
        tar(tmp_path / f"{i:02}.tar", {"a.jpg": b"1"})
    (tmp_path / "07.tar").write_bytes(b"no tar")
    found = source.list_items(str(tmp_path), "uri", {})
    assert [next(found).uri.rpartition("/")[0][-7:-1] for _ in range(7)] == [f"{i:02}.tar" for i in range(7)]
    with pytest.raises(UserError, match=r"07\.tar is not a readable \.tar"):
        next(found)


def tar_header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """Return a member's header in GNU format, with any size, and a block of its data."""
    head = name.ljust(100, b"\0") + b"0000644\0" + bytes(16) + (b"\xff" if size < 0 else b"\x80") + size.to_bytes(11, "big", signed=True)
    rest = kind + bytes(100) + b"ustar  \0" + bytes(247)
    checksum = sum(head + bytes(12) + b" " * 8 + rest)
    return (head + bytes(12) + b"%06o\0 " % checksum + rest).ljust(1024, b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"no tar at all" * 100,
        b"",
        tar_header(b"a.jpg", 2**80),
        tar_header(b"././@LongLink", 2**47, kind=b"L"),
        tar_header(b"././@LongLink", -512, kind=b"L"),
    ],
)
def test_a_shard_that_is_not_as_it_should_be_is_named(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.tar is not a readable \.tar") as error:
        items(tmp_path / "x.tar")
    assert "\n" not in str(error.value)


def test_a_tar_that_is_cut_off_is_no_tar(tmp_path, tar):
    tar(tmp_path / "x.tar", {"a.jpg": b"1" * 5000, "b.jpg": b"2" * 5000})
    data = (tmp_path / "x.tar").read_bytes()
    for length in (100, 3000, 512 + 5120 + 200, 512 + 5120 + 700):
        (tmp_path / "x.tar").write_bytes(data[:length])
        with pytest.raises(UserError, match=r"x.tar is not a readable .tar"):
            items(tmp_path / "x.tar")


def test_a_tar_with_a_broken_header_does_not_lose_its_later_members_silently(tmp_path, tar):
    tar(tmp_path / "x.tar", {"a.jpg": b"1" * 500, "b.jpg": b"2" * 500})
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[1024:1100] = b"?" * 76
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(UserError, match="cut off or broken at byte 1024"):
        items(tmp_path / "x.tar")


def test_a_tar_whose_header_claims_more_than_there_can_be_is_no_tar(tmp_path, tar):
    tar(tmp_path / "x.tar", {"a.jpg": b"x"})
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[124:136] = b"\x80" + (2**80).to_bytes(11, "big")  # the size, in base 256
    data[156:157] = b"x"  # a header that tarfile reads as a whole
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.tar is not a readable \.tar"):
        items(tmp_path / "x.tar")


def test_a_tar_without_an_end_marker_is_whole(tmp_path, tar):
    tar(tmp_path / "x.tar", {"a.jpg": b"1" * 500})
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:1024])
    assert names(tmp_path / "x.tar") == ["a.jpg"]


def test_keys_of_a_samples_json_are_kept_whatever_the_order_of_its_members(tmp_path, tar):
    members = {
        "a/0.json": b'{"post_id": 1, "user": "x"}',
        "a/0.jpg": b"1",
        "a/0.seg.png": b"2",
        "a/0.seg.json": b'{"post_id": 99}',
        "b/0.jpg": b"3",
        "1.jpg": b"4",
        "1.JSON": b'{"post_id": [2], "at": null}',
        "none.jpg": b"5",
    }
    tar(tmp_path / "x.tar", members)
    tar(tmp_path / "y.tar", {"0.jpg": b"6"})
    assert kept(tmp_path, "post_id", "name=user") == [
        ("0.jpg", "1", "x"),
        ("0.seg.png", "1", "x"),
        ("0.jpg", None, None),
        ("1.jpg", "[2]", None),
        ("none.jpg", None, None),
        ("0.jpg", None, None),
    ]
    with pytest.raises(UserError, match=r"no row of the input has 'posts_id' \(did you mean 'post_id'\?\); they have post_id"):
        kept(tmp_path, "posts_id")


def test_shards_without_a_json_have_nothing_to_keep(tmp_path, tar):
    tar(tmp_path / "x.tar", {"0.jpg": b"1", "0.txt": b"{}"})
    with pytest.raises(UserError, match="no row of the input has 'id'; they have no keys at all"):
        kept(tmp_path, "id")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"[1]", "an array; columns are kept of one JSON object"),
        (b"{", "Expecting"),
        (b'"\xe9"', "is not in UTF-8"),
        (b" " * 2**21, "2,097,152"),
    ],
)
def test_a_json_that_cannot_be_read_is_named(tmp_path, tar, data, problem):
    tar(tmp_path / "x.tar", {"0.jpg": b"1", "0.json": data})
    with pytest.raises(UserError, match=rf"x.tar!/0.json.*{problem}"):
        kept(tmp_path / "x.tar", "id")
    assert names(tmp_path / "x.tar") == ["0.jpg"]
