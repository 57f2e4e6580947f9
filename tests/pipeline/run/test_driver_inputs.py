"""Runs over every kind of source."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.run.plan import prepare

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def pictures(corpus):
    """Names and bytes of some images of the corpus."""
    return {path.name: path.read_bytes() for path in corpus.files[::3] if path.suffix != ".txt"}


def a_folder(folder, pictures, tar):
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    return {"input": str(folder)}


def a_glob(folder, pictures, tar):
    return {"input": a_folder(folder, pictures, tar)["input"] + "/*.*"}


def a_list(folder, pictures, tar):
    a_folder(folder, pictures, tar)
    (folder / "list.csv").write_text("\n".join(["file", *pictures]))
    return {"input": str(folder / "list.csv"), "column": "file"}


def a_parquet_list(folder, pictures, tar):
    a_folder(folder, pictures, tar)
    pq.write_table(pa.table({"uri": [f"file://{folder}/{name}" for name in pictures]}), folder / "list.parquet")
    return {"input": str(folder / "list.parquet")}


def a_parquet_with_bytes(folder, pictures, tar):
    pq.write_table(pa.table({"image": list(pictures.values())}), folder / "images.parquet", row_group_size=5)
    return {"input": str(folder / "images.parquet"), "column": "image"}


def a_hugging_face_dataset(folder, pictures, tar):
    structs = [{"bytes": data, "path": name} for name, data in pictures.items()]
    for i in range(2):
        pq.write_table(pa.table({"image": structs[i * 7 :][: 7 if i == 0 else None]}), folder / f"train-{i}.parquet")
    return {"input": str(folder), "column": "image"}


def shards(folder, pictures, tar):
    members = list(pictures.items())
    for i, some in enumerate((members[:5], members[5:])):
        tar(folder / f"shard-{i}.tar", dict(some) | {f"{name}.json": b"{}" for name, _ in some})
    return {"input": str(folder)}


@pytest.fixture(scope="module")
def expected(finished, rows):
    """The undisturbed run's rows by content hash."""
    return {row["content_hash"]: row for row in rows.of(finished.output, finished.record) if row["content_hash"]}


@pytest.mark.parametrize(
    "make", [a_folder, a_glob, a_list, a_parquet_list, a_parquet_with_bytes, a_hugging_face_dataset, shards], ids=lambda make: make.__name__
)
def test_every_kind_of_source_gives_the_same_labels(make, pictures, expected, operators, rows, tar, tmp_path):
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in", pictures, tar)
    found = operators.rows(prepare(AnnotateConfig(output=str(tmp_path / "out"), block_rows=6, **source)))
    assert len(found) == len(pictures)
    read = [row for row in found if row["content_hash"]]
    assert rows.differences(read, [expected[row["content_hash"]] for row in read], lambda row: row["content_hash"]) == []
    assert len(read) == sum(bool(data) for data in pictures.values())
