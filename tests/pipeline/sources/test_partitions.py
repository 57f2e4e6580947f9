"""Columns in the names of folders, kept from tables, shards and images."""

import json

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.sources.partitions import texts_of, values_of
from pipeline.sources.source import list_items
from pipeline.storage.listing import File
from pipeline.table.kept_columns import Keep
from tests.plugins.listing import kept, write


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/d/dt=2024-01-01/country=de/a.parquet", {"dt": "2024-01-01", "country": "de"}),
        ("dt=1/a.parquet", {"dt": "1"}),
        ("/d/a%20b=x%2Fy%20%C3%BC/e=a=b/a", {"a b": "x/y ü", "e": "a=b"}),
        ("/d/dt=__HIVE_DEFAULT_PARTITION__/n=/a", {"dt": None, "n": ""}),
        ("/run=7/files/dt=1/a", {"dt": "1"}),
        ("/dt=1/files/a", {}),
        ("/d/=1/a=b.parquet", {}),
    ],
)
def test_partitions_are_the_folders_directly_above_a_file(path, expected):
    assert texts_of(path) == expected


@pytest.mark.parametrize(
    "values",
    [
        ["1", "-12", "__HIVE_DEFAULT_PARTITION__"],
        ["01", "12"],
        ["1", "x"],
        ["1", str(2**31)],
        ["2024-01-01", "2024-01-02"],
        ["1.5", "2"],
        ["true", "false"],
    ],
)
def test_types_are_those_that_pyarrows_datasets_infer(tmp_path, values):
    for value in values:
        (tmp_path / f"p={value}").mkdir()
        pq.write_table(pa.table({"x": [1]}), tmp_path / f"p={value}" / "a.parquet")
    dataset = ds.dataset(tmp_path, partitioning="hive")
    found = values_of([File(path, 1, "") for path in dataset.files])
    assert {each["p"].type for each in found} == {dataset.schema.field("p").type}
    assert [each["p"].as_py() for each in found] == dataset.to_table()["p"].to_pylist()


def test_partitions_are_kept_from_parquet_and_text_and_win_over_a_column_of_the_name(tmp_path):
    for name, data in {
        "parquet/dt=2024-01-01/hour=7/a.parquet": None,
        "csv/dt=2024-01-01/hour=7/a.csv": b"uri,id,hour\na.jpg,x,9\n",
        "json/dt=2024-01-01/hour=7/a.jsonl": json.dumps({"uri": "a.jpg", "id": "x", "hour": 9}).encode(),
        "text/dt=2024-01-01/hour=7/a.txt": b"a.jpg\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        if data is None:
            pq.write_table(pa.table({"uri": ["a.jpg"], "id": ["x"], "hour": [9]}), tmp_path / name)
        else:
            (tmp_path / name).write_bytes(data)
    for kind in ("parquet", "csv", "json"):
        assert kept(tmp_path / kind, "hour", "id", "day=dt") == [("a.jpg", 7, "x", "2024-01-01")]
        assert kept(tmp_path / kind / "dt=2024-01-01", "dt") == [("a.jpg", "2024-01-01")], "one partition is named"
    assert kept(tmp_path / "text", "dt", "hour") == [("a.jpg", "2024-01-01", 7)]
    with pytest.raises(
        UserError, match=r"has no column 'dts' \(did you mean 'dt'\?\); it has uri, id, hour, dt: name one with --keep-columns"
    ):
        kept(tmp_path / "parquet", "dts")
    with pytest.raises(UserError, match=r"keep_columns: no row of .* has 'dts' \(did you mean 'dt'\?\)"):
        kept(tmp_path / "json", "dts")


def test_a_partition_of_nulls_alone_is_text():
    assert values_of([File("p=__HIVE_DEFAULT_PARTITION__/a", 1, "")]) == [{"p": pa.scalar(None, pa.string())}]


def test_a_partition_has_one_type_in_all_files(tmp_path):
    for part in ("7", "x"):
        (tmp_path / f"p={part}").mkdir()
        (tmp_path / f"p={part}" / "a.csv").write_text("uri\na.jpg\n")
    assert kept(tmp_path, "p") == [("a.jpg", "7"), ("a.jpg", "x")]


def test_image_bytes_in_partitions_keep_them(tmp_path):
    (tmp_path / "p=1").mkdir()
    pq.write_table(pa.table({"image": [b"1", b"2"]}), tmp_path / "p=1" / "a.parquet")
    assert kept(tmp_path, "p", column="image") == [("0", 1), ("1", 1)]


def test_shards_in_partitions_keep_them_beside_keys_of_their_samples(tmp_path, tar):
    for part in (1, 2):
        (tmp_path / f"p={part}").mkdir()
        tar(tmp_path / f"p={part}" / "0.tar", {"a.jpg": b"1", "a.json": b'{"id": "x"}', "b.jpg": b"2"})
    assert kept(tmp_path, "id", "p") == [("a.jpg", "x", 1), ("b.jpg", None, 1), ("a.jpg", "x", 2), ("b.jpg", None, 2)]
    assert kept(tmp_path, "p")[0] == ("a.jpg", 1)


def test_images_in_partitions_keep_them_as_text(tmp_path):
    write(tmp_path, "dt=1/country=de/a.jpg", "dt=2/country=__HIVE_DEFAULT_PARTITION__/b.jpg", "dt=2/country=x%20y/c.jpg")
    assert kept(tmp_path, "dt", "country") == [("a.jpg", "1", "de"), ("b.jpg", "2", None), ("c.jpg", "2", "x y")]
    assert [item.size for item in list_items(str(tmp_path), "uri", {}, keep=Keep(["dt"]))] == [1, 1, 1]
    with pytest.raises(
        UserError, match=r"holds images, which have no columns but those of their folders, dt, country \(did you mean 'dt'\?\)"
    ):
        kept(tmp_path, "dtt")
    write(tmp_path, "x.jpg")
    with pytest.raises(UserError, match=r"x.jpg is in no folder 'dt=…', as others are: move it, or select files by a glob"):
        kept(tmp_path, "dt")
