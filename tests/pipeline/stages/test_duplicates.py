"""Duplicates get the annotation of their originals, from the run's blocks and from earlier runs' files."""

import datetime as dt
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.images.decode import identity
from pipeline.run.plan import prepare
from pipeline.stages import dedup, merge, write
from pipeline.stages.merge import NO_BLOCKS
from pipeline.table.output_folder import OutputFolder
from tests.plugins.operators import alter_block, block_path


@pytest.fixture(scope="module")
def posted(images, tmp_path_factory):
    """Three blocks of four: the second copies from itself and from the first; the third from the first, also a file that is no image."""
    folder = tmp_path_factory.mktemp("posted")
    seeds = {"0a": 1, "0b": 2, "0c": 3, "1a": 4, "1b": 4, "1c": 1, "1d": 5, "2a": 1, "2b": 2, "2c": 6}
    for name, seed in seeds.items():
        (folder / f"{name}.jpg").write_bytes(images.jpeg(seed))
    for name in ("0d.jpg", "2d.jpg"):
        (folder / name).write_bytes(b"no image")
    return folder


@pytest.fixture
def copying(posted, operators, tmp_path):
    """A plan whose blocks are written, with duplicates that name their owners."""
    plan = prepare(AnnotateConfig(input=str(posted), output=str(tmp_path), run_id="copying", block_rows=4, keep_embeddings=True))
    with operators.sharing():
        operators.do(plan)
    return plan


@pytest.fixture
def alone(posted, operators, tmp_path_factory):
    """The rows of the same images, each annotated by itself."""
    output = str(tmp_path_factory.mktemp("alone"))
    plan = prepare(AnnotateConfig(input=str(posted), output=output, run_id="alone", block_rows=1, keep_embeddings=True))
    return operators.rows(plan)


def same(ours, theirs, rows):
    """Assert that two tables agree, in their labels, their other columns and their embeddings."""
    assert rows.differences(ours, theirs, rows.file_name) == []
    plain = ("image_id", "uri", "content_hash", "width", "height", "bytes", "status", "error", "model")
    assert [[row[name] for name in plain] for row in ours] == [[row[name] for name in plain] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert (a["embedding"] is None) == (b["embedding"] is None)
        assert a["embedding"] is None or a["embedding"] == pytest.approx(b["embedding"], abs=5e-3)


def test_a_repost_has_all_that_was_said_of_its_bytes_and_keeps_what_is_its_own(copying, alone, operators, rows):
    assert pq.read_table(block_path(copying, 2))["status"].to_pylist() == ["repost", "repost", "ok", "repost"]
    result = operators.merge(copying, "annotations/part.parquet", [0, 1, 2])
    table = pq.read_table(f"{copying.output.root}/annotations/part.parquet")
    assert table.schema.equals(copying.tables.output)
    assert table.schema.metadata == copying.tables.output.metadata
    same(table.to_pylist(), alone, rows)
    assert set(table["run_id"].to_pylist()) == {"copying"}
    assert (result["status"], result["reposts"]) == ({"ok": 10, "not_an_image": 2}, {"run": 5, "earlier": 0})
    assert all(sum(labels.values()) == 10 for labels in result["labels"].values())


def test_what_another_file_holds_is_read_once_and_no_more_than_is_wanted(copying, alone, operators, rows, monkeypatch):
    seen = []
    monkeypatch.setattr(OutputFolder, "read", lambda folder, path, read=OutputFolder.read: seen.append(path) or read(folder, path))
    operators.merge(copying, "annotations/b.parquet", [1, 2])
    same(pq.read_table(f"{copying.output.root}/annotations/b.parquet").to_pylist(), alone[4:], rows)
    assert sorted(path.rpartition("/")[2] for path in seen) == [write.file_name(number) for number in range(3)]


def test_what_an_earlier_run_said_is_copied_from_its_file(copying, alone, posted, operators, rows, monkeypatch, tmp_path):
    """The file has several row groups, with copied rows among them."""
    monkeypatch.setattr(merge, "GROUP_ROWS", 4)
    operators.merge(copying, "annotations/earlier.parquet", [0, 1, 2])

    class EarlierRows:
        def keys(self):
            column = pq.read_table(f"{copying.output.root}/annotations/earlier.parquet", columns=["content_hash"])["content_hash"]
            yield "annotations/earlier.parquet", dedup.keys_of(column)

    plan = prepare(copying.config.model_copy(update={"run_id": "later"}))
    with operators.sharing(EarlierRows()):
        operators.do(plan)
    result = operators.merge(plan, "annotations/part.parquet", [0, 1, 2])
    assert result["reposts"] == {"run": 0, "earlier": 12}
    found = pq.read_table(f"{plan.output.root}/annotations/part.parquet").to_pylist()
    same(found, alone, rows)
    assert {row["run_id"] for row in found} == {"later"}
    (tmp_path / "annotations" / "earlier.parquet").unlink()
    assert operators.merge(plan, "annotations/again.parquet", [0, 2]) == {"again": [0, 2]}
    (tmp_path / "annotations" / "earlier.parquet").write_bytes(b"no Parquet")
    assert operators.merge(plan, "annotations/again.parquet", [1]) == {"again": [1]}
    assert not (tmp_path / "annotations" / "again.parquet").exists()


def test_in_s3_it_is_copied_from_an_earlier_runs_file_too(posted, alone, operators, s3, rows, monkeypatch):
    monkeypatch.setattr(merge, "GROUP_ROWS", 4)
    output = f"s3://{s3.bucket}/reposts"
    settings = {
        "input": str(posted),
        "output": output,
        "block_rows": 4,
        "keep_embeddings": True,
        "storage_options": s3.options,
        "date": "2026-01-01",
    }
    first, second = (prepare(AnnotateConfig(**settings, run_id=name)) for name in ("first", "second"))
    with operators.sharing():
        operators.commit(first)
    since = dt.datetime(2025, 12, 31, tzinfo=dt.UTC)
    with operators.sharing(
        dedup.EarlierRows(second.output, second.rows_folder, NO_BLOCKS, second.tables, "fp32", since, identity(second.config))
    ):
        operators.do(second)
        copied = operators.merge(second, "annotations/part.parquet", [0, 1, 2])
    assert copied["reposts"] == {"run": 0, "earlier": 12}
    with second.output.open("annotations/part.parquet") as opened:
        same(pq.read_table(opened).to_pylist(), alone, rows)


@pytest.mark.parametrize("lost", ["the row", "the bytes", "the file", "the owner is a repost itself"])
def test_a_block_whose_owners_row_is_gone_is_named_and_nothing_written(copying, operators, lost):
    def change(rows):
        first = {
            "the row": rows.slice(1),
            "the bytes": rows.set_column(3, rows.field(3), [[None, *rows["content_hash"].to_pylist()[1:]]]),
            "the owner is a repost itself": rows.set_column(0, rows.field(0), [["block-00000002.parquet", None, None, None]]),
        }
        return first[lost]

    if lost == "the file":
        Path(block_path(copying, 0)).unlink()
    else:
        alter_block(copying, 0, change)
    assert operators.merge(copying, "annotations/part.parquet", [1, 2]) == {"again": [1, 2]}
    assert not copying.output.exists("annotations/part.parquet")
    operators.do(copying, [1])  # alone
    assert operators.merge(copying, "annotations/part.parquet", [1])["reposts"] == {"run": 1, "earlier": 0}
    assert operators.merge(copying, "annotations/rest.parquet", [2]) == {"again": [2]}


def test_bytes_whose_keys_are_the_same_are_never_taken_for_each_other(copying, operators):
    """Hashes that agree in their first 8 bytes: a block names an owner that does not hold its image."""
    alter_block(copying, 2, lambda rows: rows.set_column(0, rows.field(0), [["block-00000000.parquet"] * 4]))
    assert operators.merge(copying, "annotations/part.parquet", [0, 1, 2]) == {"again": [2]}
