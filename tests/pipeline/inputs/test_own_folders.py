"""An output within an input, and an input within an output."""

import os

import fsspec
import pytest

from pipeline.errors import UserError
from pipeline.inputs.own_folders import own_folders
from pipeline.storage.filesystem import connect


def own(uri, output):
    return own_folders(*connect(uri, {}), uri, output, {})


@pytest.fixture
def photos(tmp_path, monkeypatch):
    (tmp_path / "photos" / "out" / "runs").mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def test_the_folders_and_files_of_an_output_have_their_real_paths_however_it_is_spelled(photos):
    expected = tuple(f"{photos}/out/{name}" for name in ("annotations", "runs", "_work", "index.html", "iceberg.json", "iceberg.db"))
    for output in ("photos/out", "./photos/out/", f"file://{photos}/out", "link/out", os.path.join("link", "..", "photos", "out")):
        assert own(str(photos), output) == expected


@pytest.mark.parametrize("uri", ["photos", "./photos/", "link", "photos/x/.."])
def test_an_input_that_is_the_output_is_refused(photos, uri):
    (photos / "x").mkdir()
    with pytest.raises(UserError, match=r"--input and --output are the same folder, .*: name another output, such as .*/emotions"):
        own(uri, str(photos))


@pytest.mark.parametrize("uri", ["photos/out/runs", "link/out/annotations/dt=2026-11-23/*.parquet", "photos/out/annotations/x.parquet"])
def test_an_input_among_the_outputs_own_files_is_refused(photos, uri):
    with pytest.raises(UserError, match="among the output's own files: name a folder of images, or give --from-embeddings the output"):
        own(uri, "photos/out")


def test_an_input_beside_the_outputs_own_files_is_none_of_them(photos):
    assert own("photos/out/inbox", "photos/out")


def test_storage_of_another_kind_is_not_the_same(photos):
    fsspec.filesystem("memory")
    assert own("photos", "memory://photos") == ()


def test_buckets_are_compared_by_their_keys(s3):
    fs, path = connect("s3://b/photos", s3.options)
    assert own_folders(fs, path, "s3://b/photos", "s3a://b/photos/out/", s3.options)[1] == "b/photos/out/runs"
    with pytest.raises(UserError, match="the same folder"):
        own_folders(fs, path, "s3://b/photos", "s3a://b/photos/", s3.options)
