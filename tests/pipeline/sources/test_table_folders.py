"""Which folders are tables of Delta or Iceberg, and which file of Iceberg's metadata is one."""

import fsspec
import pytest

from pipeline.sources.table_folders import METADATA, TableFolder, metadata_files, table_around, table_at
from tests.plugins.listing import write

FS = fsspec.filesystem("file")


@pytest.mark.parametrize(
    ("name", "is_metadata"),
    [
        ("v1.metadata.json", True),
        ("v12.gz.metadata.json", True),
        ("00003-4f2a-b.metadata.json", True),
        ("00003-4f2a-b.gz.metadata.json", True),
        ("photos.metadata.json", False),
        ("metadata.json", False),
        ("3-x.metadata.json", False),
    ],
)
def test_metadata_files_are_known_by_their_names(name, is_metadata):
    assert (METADATA.fullmatch(name) is not None) == is_metadata


def test_a_table_is_found_at_its_folder_and_around_its_files(tmp_path):
    write(
        tmp_path,
        "d/_delta_log/0.json",
        "d/a=1/x.parquet",
        "i/metadata/v1.metadata.json",
        "i/data/x.parquet",
        "p/metadata/x.json",
        "p/x.jpg",
    )
    delta, iceberg = TableFolder("Delta", f"{tmp_path}/d"), TableFolder("Iceberg", f"{tmp_path}/i")
    for path, found in {
        "d": delta,
        "d/": delta,
        "d@v12": delta._replace(version=12),
        "d@v12/": delta._replace(version=12),
        "d/a=1": None,
        "d/*": None,
        "i": iceberg,
        "i@v1": None,
        "i/metadata/v1.metadata.json": iceberg._replace(metadata=f"{tmp_path}/i/metadata/v1.metadata.json"),
        "p": None,
        "none": None,
    }.items():
        assert table_at(FS, f"{tmp_path}/{path}") == found, path
    for path, found in {
        "d/a=1/x.parquet": delta,
        "d/a=1/*": delta,
        "d/": None,
        "i/data": iceberg,
        "p/x.jpg": None,
        "*/x": None,
        "d/*.parquet": delta,
        "d/[a]*/x": delta,
    }.items():
        assert table_around(FS, f"{tmp_path}/{path}") == found, path


def test_a_folder_named_like_a_version_is_that_folder(tmp_path):
    write(tmp_path, "d@v1/_delta_log/0.json", "d/_delta_log/0.json")
    assert table_at(FS, f"{tmp_path}/d@v1") == TableFolder("Delta", f"{tmp_path}/d@v1")


def test_a_folder_that_may_not_be_looked_at_is_no_table(tmp_path, monkeypatch):
    def refuse(self, path):
        raise PermissionError(path)

    write(tmp_path, "d/_delta_log/0.json")
    monkeypatch.setattr(type(FS), "isdir", refuse)
    assert table_around(FS, f"{tmp_path}/d/x.parquet") is None
    assert metadata_files(FS, f"{tmp_path}/d") == []


def test_a_folder_that_can_not_be_looked_at_for_now_is_an_error(tmp_path, monkeypatch):
    """Else a table's folder would be read as loose Parquet, with the rows that were deleted."""
    write(tmp_path, "d/_delta_log/0.json")
    calls = []

    def fail(self, path):
        calls.append(path)
        raise TimeoutError(path)

    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    monkeypatch.setattr(type(FS), "isdir", fail)
    with pytest.raises(TimeoutError):
        table_at(FS, f"{tmp_path}/d")
    assert len(calls) > 1
