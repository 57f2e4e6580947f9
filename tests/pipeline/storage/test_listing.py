"""Listing the files below a folder: all, in order, with few requests, and few files in memory."""

import os
import re
import threading
import time
from collections import Counter

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.storage import listing
from pipeline.storage.filesystem import connect, is_changed, version_of
from pipeline.storage.left_out import LOOP, MARKER, OUTPUT, SPECIAL
from pipeline.storage.listing import THREADS, files_below


def names(fs, folder, levels=None):
    return [file.name.removeprefix(f"{folder}/") for file in files_below(fs, folder, levels)]


@pytest.fixture
def pages(monkeypatch):
    """A list of the folders whose pages are requested from S3, one entry a page."""
    requested = []
    list_page = listing._list_page
    monkeypatch.setattr(listing, "_list_page", lambda fs, folder, keys=None: requested.append(folder) or list_page(fs, folder, keys))
    return requested


NAMES = st.text("ab-.0_ é", min_size=1, max_size=3).filter(lambda name: name.strip(".") == name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.sets(st.lists(NAMES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=20))
def test_the_files_of_any_tree_come_in_the_order_of_their_paths(paths):
    paths = {path for path in paths if not any(other.startswith(f"{path}/") for other in paths)}
    fs = fsspec.filesystem("memory")
    fs.pipe({f"/listing/{path}": b"x" for path in paths})
    try:
        assert names(fs, "/listing") == sorted(path for path in paths if not re.search(r"(^|/)\.", path))
    finally:
        fs.rm("/listing", recursive=True)


def test_a_folder_that_is_not_there_is_an_error_and_one_that_goes_away_meanwhile_is_not(tmp_path, monkeypatch):
    fs = fsspec.filesystem("file")
    with pytest.raises(FileNotFoundError):
        names(fs, f"{tmp_path}/nowhere")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"1")
    ls = fs.ls
    monkeypatch.setattr(type(fs), "ls", lambda self, path, **options: ls(path if not path.endswith("/a") else f"{path}/gone", **options))
    assert names(fs, str(tmp_path)) == ["b/x.jpg"]


def left_out(fs, folder, skip=()):
    """Return the names of the files below a folder, and of what is left out, with the reasons."""
    found = []
    files = [file.name.removeprefix(f"{folder}/") for file in files_below(fs, str(folder), None, found.append, skip)]
    return files, [(each.path.removeprefix(f"{folder}/"), each.reason) for each in found]


def test_links_to_folders_are_followed_but_not_round_in_circles(tmp_path):
    for name in ("in/a.jpg", "other/b.jpg", "other/deep/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "in" / "link").symlink_to("../other")
    (tmp_path / "in" / "up").symlink_to("..")
    (tmp_path / "in" / "self").symlink_to(".")
    (tmp_path / "other" / "deep" / "back").symlink_to(tmp_path / "in")
    files, others = left_out(fsspec.filesystem("file"), tmp_path / "in")
    assert files == ["a.jpg", "link/b.jpg", "link/deep/c.jpg"]
    assert others == [("link/deep/back/", LOOP), ("self/", LOOP), ("up/", LOOP)]


def test_two_links_that_lead_to_each_other_end(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").write_bytes(b"1")
        (tmp_path / name / "to").symlink_to(f"../{other}")
    files, others = left_out(fsspec.filesystem("file"), tmp_path)
    assert files == ["a/a.jpg", "a/to/b.jpg", "b/b.jpg", "b/to/a.jpg"]
    assert others == [("a/to/to/", LOOP), ("b/to/to/", LOOP)]


def test_a_link_to_a_file_has_the_version_of_the_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    os.utime(tmp_path / "a.jpg", (1, 1))
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    fs = fsspec.filesystem("file")
    files = list(files_below(fs, str(tmp_path)))
    assert [(file.size, file.version) for file in files] == [(1, "1.0-1")] * 2
    assert not is_changed(fs, files[1].name, files[1].version)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "p.jpg")
    assert left_out(fsspec.filesystem("file"), tmp_path) == ([], [("p.jpg", SPECIAL)])


def test_folders_to_skip_are_left_out_also_where_a_link_leads_to_them(tmp_path):
    for name in ("in/a.jpg", "in/out/runs/r.html", "out/deep/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "in" / "link").symlink_to("../out/deep")
    skip = (str(tmp_path / "in" / "out" / "runs"), str(tmp_path / "out"))
    files, others = left_out(fsspec.filesystem("file"), tmp_path / "in", skip)
    assert files == ["a.jpg"]
    assert others == [(skip[1], OUTPUT), ("out/runs", OUTPUT)]


def test_no_deeper_than_asked(tmp_path):
    for name in ("a.jpg", "b/c.jpg", "b/d/e.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    fs = fsspec.filesystem("file")
    assert [names(fs, str(tmp_path), levels) for levels in (0, 1, 2)] == [
        ["a.jpg"],
        ["a.jpg", "b/c.jpg"],
        ["a.jpg", "b/c.jpg", "b/d/e.jpg"],
    ]


class Tree:
    """A fake storage of `folders` folders with `files` files each, whose listings take `seconds` each and are counted."""

    def __init__(self, folders, files, seconds=0.01):
        self.folders, self.files, self.seconds = folders, files, seconds
        self.lock, self.running, self.most_running, self.listed = threading.Lock(), 0, 0, 0

    def invalidate_cache(self):
        pass

    def ls(self, path, detail):
        with self.lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.listed += 1
        time.sleep(self.seconds)
        with self.lock:
            self.running -= 1
        if path == "/tree":
            return [{"name": f"/tree/{i:04}", "type": "directory"} for i in range(self.folders)]
        return [{"name": f"{path}/{i:04}.jpg", "type": "file", "size": 1, "mtime": 1} for i in range(self.files)]


def test_folders_are_listed_at_once_and_no_more_than_threads_of_them():
    tree = Tree(200, 3)
    assert names(tree, "/tree") == [f"{i:04}/{k:04}.jpg" for i in range(200) for k in range(3)]
    assert THREADS / 2 < tree.most_running <= THREADS


def test_no_more_is_listed_than_may_be_held(monkeypatch):
    monkeypatch.setattr(listing, "MOST_HELD", 50)
    tree = Tree(300, 10, seconds=0.001)
    files = files_below(tree, "/tree")
    found = []
    for file in files:
        found.append(file.name)
        if len(found) % 10 == 0:
            time.sleep(0.002)
            assert tree.listed <= 2 + len(found) / 10 + 5 + 2 * THREADS
    assert (len(found), found[-1]) == (3000, "/tree/0299/0009.jpg")


def test_what_is_held_of_many_small_folders_is_in_few_parts(monkeypatch):
    lists = []

    def watched(ahead, start, look_ahead=listing._look_ahead):
        running = look_ahead(ahead, start)
        lists.append(sum(isinstance(part, list) for part in ahead))
        return running

    monkeypatch.setattr(listing, "_look_ahead", watched)
    for _ in files_below(Tree(2000, 1, seconds=0), "/tree"):
        time.sleep(0.0003)
    assert max(lists) <= 2 * THREADS


def test_an_error_ends_it_at_its_turn():
    tree = Tree(4, 2)
    ls = tree.ls
    tree.ls = lambda path, detail: ls(path, detail) if path != "/tree/0002" else 1 // 0
    files = files_below(tree, "/tree")
    assert [next(files).name for _ in range(4)] == [
        "/tree/0000/0000.jpg",
        "/tree/0000/0001.jpg",
        "/tree/0001/0000.jpg",
        "/tree/0001/0001.jpg",
    ]
    with pytest.raises(ZeroDivisionError):
        next(files)


# --- S3


ODD = ["a b+c%20d&e=f.jpg", "what?.jpg", "[1].jpg", "é ☃.jpg", "x//y.jpg", "a-b.jpg", "a/c.jpg", "a.jpg", "tab\there.jpg"]


def test_odd_keys_and_folder_markers_in_s3(s3):
    for key in ODD:
        s3.put(f"odd/{key}", b"1")
    for key in ("odd/__MACOSX/z.jpg", "odd/.z.jpg"):
        s3.put(key, b"1")
    client = s3.fs
    client.call_s3("put_object", Bucket=s3.bucket, Key="odd/", Body=b"")
    client.call_s3("put_object", Bucket=s3.bucket, Key="odd/folder/", Body=b"")
    found = list(files_below(s3.fs, f"{s3.bucket}/odd"))
    stored = {name.removeprefix(f"{s3.bucket}/odd/") for name in s3.fs.find(f"{s3.bucket}/odd") if not name.endswith("/")}
    assert [file.name.removeprefix(f"{s3.bucket}/odd/") for file in found] == sorted(stored - {"__MACOSX/z.jpg", ".z.jpg"})
    assert {"a b+c%20d&e=f.jpg", "what?.jpg", "[1].jpg", "é ☃.jpg", "a-b.jpg", "a/c.jpg", "a.jpg"} <= stored
    assert all(s3.fs.cat_file(file.name) == b"1" for file in found if "?" not in file.name)


def test_what_is_listed_is_what_the_storage_says_of_each(s3):
    s3.put("info/a.jpg", b"123")
    (file,) = files_below(s3.fs, f"{s3.bucket}/info")
    info = s3.fs.info(f"{s3.bucket}/info/a.jpg")
    assert file == (info["name"], 3, version_of(info))
    assert (file.info["size"], version_of(file.info)) == (3, file.version)


@pytest.fixture(scope="module")
def many(s3):
    """2,500 objects in one folder, and 300 in a hundred folders of another."""
    s3.fs.pipe({f"{s3.bucket}/large/{i:04}.jpg": b"1" for i in range(2500)})
    s3.fs.pipe({f"{s3.bucket}/folders/{i:02}/{k}/x.jpg": b"1" for i in range(50) for k in range(2)})
    return s3


def test_a_large_folder_is_listed_page_by_page(many, pages):
    assert names(many.fs, f"{many.bucket}/large") == [f"{i:04}.jpg" for i in range(2500)]
    assert len(pages) == 3


def test_a_folder_that_is_left_out_counts_once_however_it_is_listed(many):
    fs, folder = many.fs, f"{many.bucket}/left-out"
    fs.pipe(
        {f"{folder}/{i:02}/{name}": b"1" for i in range(40) for name in ("a.jpg", "__MACOSX/a", "__MACOSX/b", "out/runs/x", "out/runs/y")}
    )
    skip = (f"{folder}/07/out/runs",)
    files, others = left_out(fs, folder, skip)
    own = {f"{i:02}/out/runs/{name}" for i in range(40) for name in "xy" if i != 7}
    assert files == sorted({f"{i:02}/a.jpg" for i in range(40)} | own)
    assert Counter(reason for _, reason in others) == {MARKER: 40, OUTPUT: 1}


def test_pages_are_asked_for_as_they_are_needed(many, pages):
    files = files_below(many.fs, f"{many.bucket}/large")
    next(files)
    files.close()
    assert len(pages) <= 2


def test_many_folders_are_listed_without_regard_to_what_is_below_them(many, pages):
    assert names(many.fs, f"{many.bucket}/folders") == [f"{i:02}/{k}/x.jpg" for i in range(50) for k in range(2)]
    assert Counter(folder.path.count("/") for folder in pages) == {1: 1, 2: 50}


def test_few_folders_are_gone_down_so_that_there_are_more_to_list_at_once(many, pages):
    folder = f"{many.bucket}/folders/07"
    assert names(many.fs, folder) == ["0/x.jpg", "1/x.jpg"]
    assert [(page.path, page.threads) for page in sorted(pages, key=lambda page: page.path)] == [
        (folder, THREADS),
        (f"{folder}/0", THREADS / 2),
        (f"{folder}/1", THREADS / 2),
    ]


def test_pages_that_fail_are_asked_for_again(many, failing):
    with failing(fraction=0.5, kinds=("slow_down", "internal_error", "reset", "body_cut"), most=2) as (proxy, through):
        fs, folder = connect(f"s3://{many.bucket}/large", through.options | {"config_kwargs": {"retries": {"total_max_attempts": 1}}})
        assert len(names(fs, folder)) == 2500
    assert proxy.failed.total() > 0


def test_a_long_folder_is_listed_in_ranges(many, pages, monkeypatch):
    monkeypatch.setattr(listing, "DIVIDED_PAGES", 1)
    assert names(many.fs, f"{many.bucket}/large") == [f"{i:04}.jpg" for i in range(2500)]
    assert {page.after for page in pages} > {""}
