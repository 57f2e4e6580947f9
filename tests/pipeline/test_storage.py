"""Files anywhere fsspec reaches."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import fsspec
import pytest

from pipeline import storage
from pipeline.errors import StorageError, UserError
from pipeline.retry import Policy, ShortError
from tests.faults import WRITING


def test_an_unknown_protocol_names_the_one_that_was_meant():
    with pytest.raises(UserError, match=r"'s4://' of s4://bucket/x is no known kind of storage \(did you mean 's3://'\?\)"):
        storage.connect("s4://bucket/x", {})


def test_a_protocol_whose_package_is_not_installed_is_the_users_error():
    with pytest.raises(UserError, match=r"abfs://container/x: .*adlfs"):
        storage.connect("abfs://container/x", {})


def test_storage_options_are_not_for_local_files(tmp_path):
    fs, path = storage.connect(str(tmp_path), {"key": "k", "client_kwargs": {}})
    assert fs.exists(path)


def test_writing_makes_the_folders_and_leaves_nothing_beside_the_file(tmp_path):
    fs, path = storage.connect(str(tmp_path / "a" / "b" / "rows.parquet"), {})
    storage.write_atomic(fs, path, b"first")
    storage.write_atomic(fs, path, b"second")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "a" / "b").iterdir()] == [("rows.parquet", b"second")]


def test_s3_tells_browsers_what_a_file_is(s3):
    storage.write_atomic(s3.fs, "images/typed/page.html", b"<!DOCTYPE html>", "text/html; charset=utf-8")
    assert s3.fs.info("images/typed/page.html", refresh=True)["ContentType"] == "text/html; charset=utf-8"


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    fs, path = storage.connect(str(tmp_path / "rows.parquet"), {})
    storage.write_atomic(fs, path, b"old")
    with pytest.raises(TypeError):
        storage.write_atomic(fs, path, "no bytes")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("rows.parquet", b"old")]


def test_writing_works_on_other_kinds_of_storage():
    fs, path = storage.connect("memory://storage-test/deep/file", {})
    storage.write_atomic(fs, path, b"data")
    assert fsspec.filesystem("memory").cat_file("/storage-test/deep/file") == b"data"


@pytest.mark.parametrize("where", ["local", "memory", "s3"])
def test_the_end_of_a_file_comes_with_its_size(where, s3, tmp_path):
    base = {"local": str(tmp_path), "memory": "memory://tail", "s3": f"s3://{s3.bucket}/tail"}[where]
    fs, path = storage.connect(f"{base}/file", s3.options if where == "s3" else {})
    fs.pipe_file(path, b"0123456789")
    assert storage.tail(fs, path, 10, 4) == (b"6789", 10)
    assert storage.tail(fs, path, 10, 10) == storage.tail(fs, path, 10, 11) == (b"0123456789", 10)
    with pytest.raises(FileNotFoundError):
        storage.tail(fs, f"{path}-not-there", 10, 4)


def test_the_end_of_an_object_is_one_request_for_the_version_that_is_meant(s3, failing):
    uri = s3.put("tail/one", b"0123456789")
    etag = s3.fs.info(uri)["ETag"].strip('"')
    with failing() as (proxy, server):
        fs, path = storage.connect(uri, server.options)
        assert storage.tail(fs, path, 10, 4, etag) == (b"6789", 10)
        assert (proxy.count("GET"), proxy.requests.total()) == (1, 1)
        with pytest.raises(OSError, match=r"PreconditionFailed|pre-conditions"):
            storage.tail(fs, path, 10, 4, "0" * 32)
    with failing(always={"one": "short_length"}) as (_, server), pytest.raises(ShortError, match="2 bytes came of 4"):
        storage.tail(storage.connect(uri, server.options)[0], path, 10, 4)


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"ETag": '"abc"', "size": 3, "mtime": 1.5}, "abc"),
        ({"etag": "abc-2", "size": 3}, "abc-2"),
        ({"mtime": 1.5, "size": 3}, "1.5-3"),
        ({"LastModified": "today", "size": 3}, "today-3"),
        ({"size": 3}, "-3"),
    ],
)
def test_the_version_is_the_etag_or_else_time_and_size(info, version):
    assert storage.version_of(info) == version


# --- reading and writing through faults

TIMES = {"config_kwargs": {"read_timeout": 0.5, "connect_timeout": 5, "retries": {"total_max_attempts": 1}}}


def test_files_are_written_and_read_through_faults(s3, failing):
    kinds = (*WRITING, "short_length", "body_cut", "body_reset")
    with failing(fraction=0.3, kinds=kinds, most=2) as (proxy, server):
        fs, folder = storage.connect(f"s3://{s3.bucket}/written", server.options | TIMES)
        for i in range(12):
            storage.write_atomic(fs, f"{folder}/{i}", b"%d" % i * 1000)
        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(lambda i: storage.create_atomic(fs, f"{folder}/new-{i}", b"%d" % i * 1000), range(12)))
            assert not any(pool.map(lambda i: storage.create_atomic(fs, f"{folder}/new-{i}", b"another"), range(12)))
    assert proxy.failed.total() >= 8
    for i in range(12):
        assert s3.fs.cat_file(f"{folder}/{i}") == s3.fs.cat_file(f"{folder}/new-{i}") == b"%d" % i * 1000


def test_a_whole_file_is_read_by_one_request_and_again_where_it_is_cut_off(s3, failing):
    s3.put("read/a.json", b"{}" * 500)
    with failing() as (proxy, server):
        fs, path = storage.connect(f"s3://{s3.bucket}/read/a.json", server.options)
        assert storage.read(fs, path) == b"{}" * 500
        assert proxy.requests == {("GET", f"/{path}"): 1}
        with pytest.raises(FileNotFoundError):
            storage.read(fs, f"{path}.gone")
    with failing(fraction=1, kinds=("body_cut", "slow_down", "reset"), most=3) as (proxy, server):
        fs, path = storage.connect(f"s3://{s3.bucket}/read/a.json", server.options | TIMES)
        assert storage.read(fs, path, Policy(10, first_wait=0.01)) == b"{}" * 500
        assert proxy.failed.total() == 3


def test_a_file_that_is_open_is_read_through_faults_and_is_one_version(s3, failing):
    data = bytes(range(256)) * 4000
    s3.put("open/a.bin", data)
    with failing(fraction=0.3, kinds=("slow_down", "internal_error", "short_length", "body_reset"), most=2) as (_, server):
        fs, path = storage.connect(f"s3://{s3.bucket}/open/a.bin", server.options | TIMES)
        with storage.open_file(fs, path, ahead=1000) as file:
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
        fs, path = storage.connect(f"s3://{s3.bucket}/listed", server.options | TIMES)
        assert storage.listed(fs, path, lambda: fs.ls(path, detail=False)) == [f"{path}/a"]
    s3.put("listed/b", b"1")
    assert storage.listed(s3.fs, path, lambda: s3.fs.ls(path, detail=False)) == [f"{path}/a", f"{path}/b"]


# --- writing what must be new


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request, tmp_path):
    """A file system and a folder in it."""
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        return s3.fs, f"{s3.bucket}/created/{tmp_path.name}"
    return storage.connect({"local": str(tmp_path), "memory": f"memory://created/{tmp_path.name}"}[request.param], {})


def test_a_new_file_is_written_once(folder):
    fs, path = folder
    assert storage.create_atomic(fs, f"{path}/deep/a", b"first")
    assert not storage.create_atomic(fs, f"{path}/deep/a", b"second")
    assert storage.create_atomic(fs, f"{path}/deep/a", b"first")  # as after an answer that was lost
    assert fs.cat_file(f"{path}/deep/a") == b"first"
    assert [name.rpartition("/")[2] for name in fs.find(f"{path}/deep")] == ["a"]
    storage.write_atomic(fs, f"{path}/deep/a", b"third")
    assert fs.cat_file(f"{path}/deep/a") == b"third"


@pytest.mark.parametrize("size", [0, 1000, 3 * 5 * 2**20 + 1], ids=["empty", "small", "in parts"])
def test_a_local_file_is_uploaded_whole(folder, tmp_path_factory, monkeypatch, size):
    fs, path = folder
    monkeypatch.setattr(storage, "UPLOADED", 5 * 2**20)
    file = tmp_path_factory.mktemp("uploaded") / "file"
    file.write_bytes(os.urandom(size))
    storage.upload_atomic(fs, str(file), f"{path}/deep/file")
    assert fs.cat_file(f"{path}/deep/file") == file.read_bytes()
    assert [name.rpartition("/")[2] for name in fs.find(f"{path}/deep")] == ["file"]


def test_of_several_writers_at_once_one_succeeds(folder):
    fs, path = folder
    if fs.protocol == "memory":
        pytest.skip("fsspec's memory is of one process, and looks before it writes")
    for i in range(2):  # a loser may wait seconds for SeaweedFS's lock
        together = Barrier(8)

        def write(number, name=f"{path}/{i}", together=together):
            together.wait(20)
            return storage.create_atomic(fs, name, b"writer %d" % number)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(write, range(8)))
        assert sum(won) == 1
        assert fs.cat_file(f"{path}/{i}") == b"writer %d" % won.index(True)


def test_what_can_not_be_written_is_no_name_that_is_taken(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    fs, path = storage.connect(str(tmp_path / "file" / "below"), {})
    with pytest.raises((FileExistsError, NotADirectoryError)):
        storage.write_atomic(fs, path, b"x")


# --- credentials


def test_credentials_that_were_renewed_meanwhile_are_taken(s3, monkeypatch, tmp_path):
    s3.put("renewed/a", b"mine")
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)

    def give(key, secret):
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")

    give("SOMEBODYELSESKEY", "not-the-secret")
    fs, path = storage.connect(f"s3://{s3.bucket}/renewed/a", {"client_kwargs": s3.options["client_kwargs"]})
    outcomes = []

    def attempt(seconds):
        try:
            outcomes.append(storage.get(fs, path, seconds))
        except PermissionError:
            outcomes.append("refused")
            give(s3.key, s3.secret)
            raise
        return outcomes[-1]

    assert storage.ask(fs, path, Policy(20, first_wait=0.01), attempt) == b"mine"
    assert outcomes == ["refused", b"mine"]


def test_credentials_that_stay_refused_stop_the_run_in_one_line_that_says_how_to_go_on(s3):
    fs, path = storage.connect(f"s3://{s3.bucket}/x", s3.refused)
    with pytest.raises(StorageError, match=r"^the credentials for s3://images/x are expired or wrong \(InvalidAccessKeyId\): renew them; "):
        storage.read(fs, path, Policy(20, first_wait=0.01))
    fs, path = storage.connect(f"s3://{s3.bucket}/x", s3.options | {"secret": "not-the-secret"})
    with pytest.raises(StorageError, match=r"\(SignatureDoesNotMatch\)") as stopped:
        storage.create_atomic(fs, path, b"x")
    assert "not-the-secret" not in str(stopped.value)


# --- URIs as they are


@pytest.mark.parametrize("uri", ["s3://x::file:///etc/hostname", "memory://x::file:///etc/hostname", "file:///a::b", "/a::memory://b"])
def test_a_uri_is_never_a_chain(uri):
    fs, path = storage.connect(uri, {"anon": True} if uri.startswith("s3") else {})
    assert storage.protocol(uri) in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
    assert "::" in path


def test_the_case_of_a_protocol_does_not_matter(tmp_path):
    assert storage.connect(f"FILE://{tmp_path}", {})[1] == str(tmp_path)


@pytest.mark.parametrize("uri", ["s4://me:hunter2@bucket/x", "abfs://c@a/x?sig=1"])
def test_what_can_not_be_connected_is_named_without_its_password(uri):
    with pytest.raises(UserError) as refused:
        storage.connect(uri, {})
    assert "hunter2" not in str(refused.value)
