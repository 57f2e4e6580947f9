"""Verification of a run's blocks, and merging them into the table's files."""

import errno
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import StorageError
from pipeline.run.plan import prepare
from pipeline.stages import merge, write
from pipeline.stages.merge import Merger, VerificationError, block_groups
from pipeline.table.output_folder import OutputFolder
from tests.plugins.operators import alter_block, block_path


@pytest.fixture(scope="module")
def written(corpus, tmp_path_factory, operators):
    """An output whose blocks are all written, and none committed."""
    output = tmp_path_factory.mktemp("commit")
    operators.do(prepare(AnnotateConfig(input=str(corpus.folder), output=str(output), run_id="r", block_rows=10)))
    return output


@pytest.fixture
def plan(corpus, written, tmp_path):
    """A copy of it, which a test may alter."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    plan = prepare(AnnotateConfig(input=str(corpus.folder), output=str(tmp_path), run_id="r", block_rows=10))
    assert plan.todo.tolist() == []
    return plan


@pytest.fixture
def merger(plan):
    return Merger(plan.output, plan.rows_folder, plan.manifest, plan.tables)


def groups(plan, *skipped):
    return [group.tolist() for group in block_groups(plan.output, plan.rows_folder, plan.manifest, *skipped)]


def manifest_ids(plan):
    return [i for block in range(plan.manifest.blocks) for i in plan.manifest.read(plan.output, block)["image_id"].to_pylist()]


def test_blocks_become_a_file_with_all_their_rows_in_order(plan, merger, corpus):
    target = "annotations/dt=2026-01-02/part-r-0123abcd-00000.parquet"
    result = merger(target, [0, 1, 2, 3])
    table = pq.read_table(f"{plan.output.root}/{target}", partitioning=None)
    wanted = pa.concat_tables(plan.manifest.read(plan.output, block) for block in range(4))
    assert table.schema.equals(plan.tables.output)
    assert table.schema.metadata == plan.tables.output.metadata
    assert table.column("image_id").equals(wanted.column("image_id"))
    assert result["rows"] == len(table) == 40
    statuses = list(corpus.status.values())
    assert result["status"] == {status: statuses.count(status) for status in statuses}
    for scheme in plan.tables.schemes:
        assert list(result["labels"][scheme.name]) == list(scheme.label_names)
        assert sum(result["labels"][scheme.name].values()) == statuses.count("ok")


def test_gathering_again_leaves_the_same_one_file(plan, merger):
    assert merger("annotations/part.parquet", [0, 1]) == merger("annotations/part.parquet", [0, 1])
    assert len(plan.output.names("annotations")) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.slice(1), "block 1 is broken: it holds 9 rows that are not the manifest's 10"),
        (lambda rows: pa.concat_tables([rows, rows]), "block 1 is broken: it holds 20 rows"),
        (lambda rows: rows.take(list(reversed(range(10)))), "block 1 is broken: it holds 10 rows that are not the manifest's 10"),
        (lambda rows: rows.drop_columns("sentence"), "block 1 is broken: its rows are not in the run's schema"),
        (
            lambda rows: rows.set_column(rows.schema.get_field_index("bytes"), "bytes", rows.column("bytes").cast(pa.float64())),
            "block 1 is broken: its rows are not in the run's schema",
        ),
    ],
    ids=["a row less", "twice", "another order", "no sentence", "another type"],
)
def test_a_block_that_is_not_the_manifests_is_not_committed(plan, merger, change, message):
    alter_block(plan, 1, change)
    with pytest.raises(VerificationError, match=message):
        merger("annotations/part.parquet", [0, 1])
    assert not plan.output.exists("annotations/part.parquet")
    assert prepare(plan.config).todo.tolist() == [1]


def test_a_block_whose_file_is_broken_is_done_again(plan, merger):
    spoiled = bytearray(Path(block_path(plan, 2)).read_bytes())
    columns = pq.read_metadata(block_path(plan, 2)).row_group(0)
    start = next(columns.column(i).data_page_offset for i in range(columns.num_columns) if columns.column(i).path_in_schema == "uri")
    spoiled[start : start + 60] = bytes(60)
    for number, data in ((0, b"no Parquet"), (2, b""), (2, bytes(spoiled))):
        Path(block_path(plan, number)).write_bytes(data)
        with pytest.raises(VerificationError, match=f"block {number} is broken: .*; the same --run-id annotates it again"):
            merger("annotations/part.parquet", [number, 1])
    assert prepare(plan.config).todo.tolist() == [0, 2]


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-9], lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:]], ids=["cut", "flipped"]
)
def test_a_file_that_the_storage_spoiled_is_not_committed(plan, merger, monkeypatch, spoil, tmp_path):
    def upload(folder, file, path, upload=OutputFolder.upload):
        spoiled = tmp_path / "spoiled"
        spoiled.write_bytes(spoil(Path(file).read_bytes()))
        upload(folder, str(spoiled), path)

    monkeypatch.setattr(OutputFolder, "upload", upload)
    with pytest.raises(VerificationError, match=r"annotations/part\.parquet does not read back"):
        merger("annotations/part.parquet", [0, 1])


def test_the_blocks_of_another_block_are_not_committed(plan, merger):
    shutil.copy(block_path(plan, 0), block_path(plan, 2))
    with pytest.raises(VerificationError, match="block 2"):
        merger("annotations/part.parquet", [2])


def test_a_block_that_was_not_written_is_missed(plan):
    for number in (2, 3):
        Path(block_path(plan, number)).unlink()
    with pytest.raises(VerificationError, match="2 of 4 blocks were not written, the first 2"):
        block_groups(plan.output, plan.rows_folder, plan.manifest)


def test_a_files_rows_lie_in_groups_of_whole_blocks(plan, merger, monkeypatch):
    monkeypatch.setattr(merge, "GROUP_ROWS", 20)
    whole = merger("annotations/part.parquet", [0, 1, 2, 3])
    metadata = pq.read_metadata(f"{plan.output.root}/annotations/part.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [20, 20]
    monkeypatch.setattr(merge, "GROUP_ROWS", 19)
    assert merger("annotations/part.parquet", [0, 1, 2, 3]) == whole
    assert pq.read_metadata(f"{plan.output.root}/annotations/part.parquet").num_row_groups == 4


def test_rows_of_images_that_another_run_annotated_are_left_out_and_counted(plan, merger):
    ids = manifest_ids(plan)
    overtaken = np.sort([*ids[3:30], 7])
    result = merger("annotations/part.parquet", [0, 1, 2, 3], overtaken)
    table = pq.read_table(f"{plan.output.root}/annotations/part.parquet")
    assert table["image_id"].to_pylist() == [*ids[:3], *ids[30:]]
    assert (result["rows"], result["overtaken"], sum(result["status"].values())) == (13, 27, 13)
    assert merger("annotations/none.parquet", [1, 2], overtaken)["rows"] == 0
    assert not plan.output.exists("annotations/none.parquet")


def test_blocks_that_are_skipped_need_not_be_written(plan):
    Path(block_path(plan, 1)).unlink()
    assert groups(plan, np.array([1, 2])) == [[0, 3]]
    assert groups(plan, np.arange(4)) == []


def test_images_that_failed_before_are_counted_by_status_and_blocks_whose_failures_may_pass_are_named(plan, merger):
    path = plan.output.absolute(f"{plan.manifest.folder}/part-00000.parquet")
    listed = pq.read_table(path)
    retried = [i in (0, 1, 25) for i in range(40)]
    listed = listed.set_column(listed.schema.get_field_index("retried"), listed.schema.field("retried"), pa.array(retried))
    pq.write_table(listed, path, row_group_size=10)
    fail = {"status": "timeout", "error": "not read"}
    alter_block(
        plan, 2, lambda rows: pa.Table.from_pylist([rows.to_pylist()[i] | (fail if i == 5 else {}) for i in range(10)], rows.schema)
    )
    result = merger("annotations/part.parquet", [0, 1, 2, 3])
    statuses = pq.read_table(f"{plan.output.root}/annotations/part.parquet")["status"].to_pylist()
    assert result["retried"] == dict(Counter([statuses[0], statuses[1], "timeout"]))
    assert result["may_pass"] == [2]


def test_a_full_local_disk_is_said_with_the_path(plan, merger, monkeypatch):
    def full(*_, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StorageError, match=r"/ugrie-\w+ can't be written, since its disk is full"):
        merger("annotations/part.parquet", [0, 1])


def test_a_small_run_is_one_file(plan):
    assert groups(plan) == [[0, 1, 2, 3]]


def test_files_are_cut_where_they_reach_their_size(plan, monkeypatch):
    sizes = write.block_sizes(plan.output, plan.rows_folder, plan.manifest.blocks)
    monkeypatch.setattr(merge, "FILE_BYTES", int(sizes.max()) + 1)
    assert groups(plan) == [[0, 1], [2, 3]]
    monkeypatch.setattr(merge, "FILE_BYTES", 1)
    assert groups(plan) == [[0], [1], [2], [3]]


def test_files_are_cut_where_they_reach_their_rows(plan, monkeypatch):
    monkeypatch.setattr(merge, "FILE_ROWS", 30)
    assert groups(plan) == [[0, 1, 2], [3]]
