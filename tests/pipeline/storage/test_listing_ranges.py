"""A long folder of S3 is listed in ranges of keys at once, each file once and in order, with few requests more."""

import bisect
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import StorageError
from pipeline.storage import listing
from pipeline.storage.listing import THREADS, files_below


def names(fs, folder, levels=None):
    return [file.name.removeprefix(f"{folder}/") for file in files_below(fs, folder, levels)]


class Bucket:
    """A fake bucket with pages of `size` keys, sorted as S3 does or, with `by_names`, as SeaweedFS: folder by folder, without slashes."""

    def __init__(self, keys, size, by_names=False):
        self.sorting = (lambda key: key.split("/")) if by_names else str
        self.keys, self.size, self.by_names, self.pages = sorted(keys, key=self.sorting), size, by_names, 0

    def page(self, fs, folder, keys=None):
        """Stand in for `listing._list_page`."""
        self.pages += 1
        start = folder.path.partition("/")[2] + "/"
        after = (folder.token or folder.after).partition("/")[2]
        found = {}  # what is listed, with the last key in it
        for key in self.keys:
            if key.startswith(start):
                name, slash, _ = key[len(start) :].partition("/")
                found[start + name + slash if listing._by_folders(folder) else key] = key
        if self.by_names:
            found, after = {each: each.rstrip("/") for each in found}, after.rstrip("/")
        elif folder.token:
            found = {each: each for each in found}
        entries = [f"b/{each}" for each, last in found.items() if not after or self.sorting(last) > self.sorting(after)]
        page = entries[: keys or self.size]
        listed = [(path, None if path.endswith("/") else listing.File(path, 1, "v")) for path in page]
        return listed, page[-1] if len(entries) > len(page) else None

    def listed(self, monkeypatch, divided_pages=listing.DIVIDED_PAGES):
        """Return the names below the folder `f`."""
        with monkeypatch.context() as patch:
            patch.setattr(listing, "is_s3", lambda fs: True)
            patch.setattr(listing, "_list_page", self.page)
            patch.setattr(listing, "DIVIDED_PAGES", divided_pages)
            return names(None, "b/f")


class FlatBucket(Bucket):
    """A fake bucket without folders, which is fast."""

    def page(self, fs, folder, keys=None):
        self.pages += 1
        begin = bisect.bisect(self.keys, (folder.token or folder.after).partition("/")[2])
        page = [f"b/{key}" for key in self.keys[begin : begin + (keys or self.size)]]
        return [(path, listing.File(path, 1, "v")) for path in page], page[-1] if begin + len(page) < len(self.keys) else None


STARTS = st.sampled_from(["", "IMG-", "IMG/", "p/", "2026-11-"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.sets(st.tuples(STARTS, st.text("0123aIMG-(~é", min_size=1, max_size=5)).map("".join), max_size=120), st.booleans(), st.integers(1, 3)
)
def test_ranges_have_each_file_once_however_the_storage_sorts_folders(monkeypatch, found, by_names, divided_pages):
    found = {name for name in found if not any(other.startswith(f"{name}/") for other in found)}
    bucket = Bucket({f"f/{name}" for name in found}, 5, by_names)
    listed = bucket.listed(monkeypatch, divided_pages)
    assert sorted(listed) == sorted(found)
    assert by_names or listed == sorted(found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.sets(st.tuples(STARTS, st.text("0123aIMG-(é", min_size=1, max_size=5)).map("".join), max_size=120),
    st.integers(1, 3),
    st.integers(1, 40),
)
def test_a_listing_that_is_stopped_and_gone_on_with_elsewhere_has_the_same_files_in_order(monkeypatch, found, divided_pages, most):
    found = {name for name in found if not any(other.startswith(f"{name}/") for other in found)}
    bucket = Bucket({f"f/{name}" for name in found}, 5)
    with monkeypatch.context() as patch:
        patch.setattr(listing, "is_s3", lambda fs: True)
        patch.setattr(listing, "_list_page", bucket.page)
        patch.setattr(listing, "DIVIDED_PAGES", divided_pages)
        left, listed = [listing.Folder.at(None, "b/f")], []
        while left:
            first = left.pop(0)
            if isinstance(first, list):
                listed += first
                continue
            walk, count = listing.Walk(None, [pickle.loads(pickle.dumps(first))], len("b/f")), 0
            for files in walk:
                listed += files
                count += len(files)
                if count >= most:
                    left = walk.rest() + left
    assert [file.name.removeprefix("b/f/") for file in listed] == sorted(found)


NAMINGS = {
    "numbers": lambda i: f"{i:012d}.jpg",
    "numbers without zeros": lambda i: f"IMG-{i}.jpg",
    "random": lambda i: f"{hash((i, 1)) % 2**64:016x}.jpg",
    "dates": lambda i: f"2026-11-{1 + i % 28:02}T{i // 28 % 24:02}:{i // 672:06}.jpeg",
}


@pytest.mark.parametrize("name", NAMINGS.values(), ids=NAMINGS)
def test_a_long_folder_takes_few_more_requests_and_is_soon_listed_in_many_ranges(monkeypatch, name):
    bucket, together = FlatBucket({f"f/{name(i)}" for i in range(2000)}, 4), []
    look_ahead = listing._look_ahead
    monkeypatch.setattr(listing, "_look_ahead", lambda ahead, start: together.append(len(running := look_ahead(ahead, start))) or running)
    assert bucket.listed(monkeypatch) == sorted({name(i) for i in range(2000)})
    assert bucket.pages <= 1.2 * 500
    assert max(together) >= THREADS / 4


def test_a_long_folder_before_many_others_is_divided_once_no_more_of_them_may_be_held(monkeypatch):
    """Its own files are then all that is listed."""
    monkeypatch.setattr(listing, "MOST_HELD", 300)
    keys = {f"f/00/{i:04}.jpg" for i in range(2400)} | {f"f/{k:02}/{i:02}.jpg" for k in range(1, 60) for i in range(60)}
    bucket, ranges = Bucket(keys, 60), []
    page = bucket.page
    monkeypatch.setattr(bucket, "page", lambda fs, folder, keys=None: ranges.append(folder) or page(fs, folder, keys))
    assert bucket.listed(monkeypatch, divided_pages=8) == sorted(key.removeprefix("f/") for key in keys)
    assert {folder.path for folder in ranges if folder.after} == {"b/f/00"}


def test_storage_that_ends_its_order_half_way_is_an_error_and_loses_nothing(monkeypatch):
    bucket = FlatBucket({f"f/{i:04}" for i in range(400)}, 10)
    page = bucket.page
    monkeypatch.setattr(
        bucket,
        "page",
        lambda fs, folder, keys=None: (
            (lambda entries, token: (entries[::-1], token))(*page(fs, folder, keys)) if folder.after else page(fs, folder, keys)
        ),
    )
    with pytest.raises(StorageError, match="not listed in the order of its keys"):
        bucket.listed(monkeypatch)
