"""Reading, listing and writing files in storage, also through faults."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import fsspec
import pytest

from benchmarks.servers.proxy import WRITING
from pipeline.errors import StorageError
from pipeline.storage.files import create_atomic, list_with_retries, open_file, read, upload_atomic, write_atomic
from pipeline.storage.filesystem import connect
from pipeline.storage.retry import Policy


def test_writing_makes_the_folders_and_leaves_nothing_beside_the_file(tmp_path):
    fs, path = connect(str(tmp_path / "a" / "b" / "rows.parquet"), {})
    write_atomic(fs, path, b"first")
    write_atomic(fs, path, b"second")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "a" / "b").iterdir()] == [("rows.parquet", b"second")]


def test_s3_tells_browsers_what_a_file_is(s3):
    write_atomic(s3.fs, "images/typed/page.html", b"<!DOCTYPE html>", "text/html; charset=utf-8")
    assert s3.fs.info("images/typed/page.html", refresh=True)["ContentType"] == "text/html; charset=utf-8"


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    fs, path = connect(str(tmp_path / "rows.parquet"), {})
    write_atomic(fs, path, b"old")
    with pytest.raises(TypeError):
        write_atomic(fs, path, "no bytes")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("rows.parquet", b"old")]


def test_writing_works_on_other_kinds_of_storage():
    fs, path = connect("memory://storage-test/deep/file", {})
    write_atomic(fs, path, b"data")
    assert fsspec.filesystem("memory").cat_file("/storage-test/deep/file") == b"data"


# --- reading and writing through faults

TIMES = {"config_kwargs": {"read_timeout": 0.5, "connect_timeout": 5, "retries": {"total_max_attempts": 1}}}


def test_files_are_written_and_read_through_faults(s3, failing):
    kinds = (*WRITING, "short_length", "body_cut", "body_reset")
    with failing(fraction=0.3, kinds=kinds, most=2) as (proxy, server):
        fs, folder = connect(f"s3://{s3.bucket}/written", server.options | TIMES)
        for i in range(12):
            write_atomic(fs, f"{folder}/{i}", b"%d" % i * 1000)
        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(lambda i: create_atomic(fs, f"{folder}/new-{i}", b"%d" % i * 1000), range(12)))
            assert not any(pool.map(lambda i: create_atomic(fs, f"{folder}/new-{i}", b"another"), range(12)))
    assert proxy.failed.total() >= 8
    for i in range(12):
        assert s3.fs.cat_file(f"{folder}/{i}") == s3.fs.cat_file(f"{folder}/new-{i}") == b"%d" % i * 1000


def test_a_whole_file_is_read_by_one_request_and_again_where_it_is_cut_off(s3, failing):
    s3.put("read/a.json", b"{}" * 500)
    with failing() as (proxy, server):
        fs, path = connect(f"s3://{s3.bucket}/read/a.json", server.options)
        assert read(fs, path) == b"{}" * 500
        assert proxy.requests == {("GET", f"/{path}"): 1}
        with pytest.raises(FileNotFoundError):
            read(fs, f"{path}.gone")
    with failing(fraction=1, kinds=("body_cut", "slow_down", "reset"), most=3) as (proxy, server):
        fs, path = connect(f"s3://{s3.bucket}/read/a.json", server.options | TIMES)
        assert read(fs, path, Policy(10, first_wait=0.01)) == b"{}" * 500
        assert proxy.failed.total() == 3


def test_a_file_that_is_open_is_read_through_faults_and_is_one_version(s3, failing):
    data = bytes(range(256)) * 4000
    s3.put("open/a.bin", data)
    with failing(fraction=0.3, kinds=("slow_down", "internal_error", "short_length", "body_reset"), most=2) as (_, server):
        fs, path = connect(f"s3://{s3.bucket}/open/a.bin", server.options | TIMES)
        with open_file(fs, path, ahead=1000) as file:
            for start in range(0, len(data), 100_000):
                file.seek(start)
                assert file.read(5000) == data[start : start + 5000]
            file.seek(0)
            s3.put("open/a.bin", data[::-1])
            with pytest.raises(OSError, match=r"(?i)condition"):
                file.read(9000)


def test_a_listing_is_made_again_where_it_fails(s3, failing):
    s3.put("listed/a", b"1")
    with failing(fraction=1, kinds=("slow_down", "internal_error", "reset"), most=3) as (_, server):
        fs, path = connect(f"s3://{s3.bucket}/listed", server.options | TIMES)
        assert list_with_retries(fs, path, lambda: fs.ls(path, detail=False)) == [f"{path}/a"]
    s3.put("listed/b", b"1")
    assert list_with_retries(s3.fs, path, lambda: s3.fs.ls(path, detail=False)) == [f"{path}/a", f"{path}/b"]


# --- writing what must be new


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request, tmp_path):
    """A file system and a folder in it."""
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        return s3.fs, f"{s3.bucket}/created/{tmp_path.name}"
    return connect({"local": str(tmp_path), "memory": f"memory://created/{tmp_path.name}"}[request.param], {})


def test_a_new_file_is_written_once(folder):
    fs, path = folder
    assert create_atomic(fs, f"{path}/deep/a", b"first")
    assert not create_atomic(fs, f"{path}/deep/a", b"second")
    assert create_atomic(fs, f"{path}/deep/a", b"first")  # as after a lost response
    assert fs.cat_file(f"{path}/deep/a") == b"first"
    assert [name.rpartition("/")[2] for name in fs.find(f"{path}/deep")] == ["a"]
    write_atomic(fs, f"{path}/deep/a", b"third")
    assert fs.cat_file(f"{path}/deep/a") == b"third"


@pytest.mark.parametrize("size", [0, 1000, 3 * 5 * 2**20 + 1], ids=["empty", "small", "in parts"])
def test_a_local_file_is_uploaded_whole(folder, tmp_path_factory, monkeypatch, size):
    fs, path = folder
    monkeypatch.setattr("pipeline.storage.files.PART_SIZE", 5 * 2**20)
    file = tmp_path_factory.mktemp("uploaded") / "file"
    file.write_bytes(os.urandom(size))
    upload_atomic(fs, str(file), f"{path}/deep/file")
    assert fs.cat_file(f"{path}/deep/file") == file.read_bytes()
    assert [name.rpartition("/")[2] for name in fs.find(f"{path}/deep")] == ["file"]


def test_of_several_writers_at_once_one_succeeds(folder):
    fs, path = folder
    if fs.protocol == "memory":
        pytest.skip("fsspec's memory file system is for one process, and checks before it writes")
    for i in range(2):  # a writer that loses may wait seconds for SeaweedFS's lock
        together = Barrier(8)

        def write(number, name=f"{path}/{i}", together=together):
            together.wait(20)
            return create_atomic(fs, name, b"writer %d" % number)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(write, range(8)))
        assert sum(won) == 1
        assert fs.cat_file(f"{path}/{i}") == b"writer %d" % won.index(True)


def test_what_can_not_be_written_is_no_name_that_is_taken(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    fs, path = connect(str(tmp_path / "file" / "below"), {})
    with pytest.raises((FileExistsError, NotADirectoryError)):
        write_atomic(fs, path, b"x")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("write", [write_atomic, create_atomic])
def test_a_full_disk_is_said_with_the_path_and_leaves_no_draft(tmp_path, monkeypatch, write, number):
    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    path = f"{tmp_path}/out/file"
    with pytest.raises(StorageError, match=f"{path} can't be written, since its disk is full: free some space") as error:
        write(fsspec.filesystem("file"), path, b"data")
    assert "\n" not in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []
