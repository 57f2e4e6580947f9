"""The third operator: writes a block's rows to a file."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.run.plan import prepare
from pipeline.stages import write
from pipeline.table.output_folder import OutputFolder
from tests.plugins.operators import block_path


def plan_into(corpus, output):
    return prepare(AnnotateConfig(input=str(corpus.folder / "a"), output=str(output), run_id="r", block_rows=5, limit=8))


@pytest.fixture(scope="module")
def both(operators, corpus, tmp_path_factory):
    """Blocks 0 and 1, annotated, in one table."""
    plan = plan_into(corpus, tmp_path_factory.mktemp("blocks"))
    return pa.concat_tables([operators.annotator(plan)(operators.load(plan, block)) for block in plan.todo])


@pytest.fixture
def annotated(both):
    return both.slice(0, 5)


@pytest.fixture
def plan(corpus, tmp_path):
    return plan_into(corpus, tmp_path)


def test_a_table_that_is_not_as_declared_is_refused_by_its_column(operators, plan, annotated):
    with pytest.raises(TypeError, match="write: column sentence string was declared"):
        operators.writer(plan)(annotated.drop_columns("sentence"))


def test_a_block_is_written_to_its_file_and_counted(operators, plan, annotated):
    written = operators.writer(plan)(annotated)
    assert written.schema.equals(write.WRITTEN)
    (row,) = written.to_pylist()
    assert (row["block"], row["rows"], row["ok"]) == (0, 5, annotated.column("status").to_pylist().count("ok"))
    assert dict(row["status"]) == Counter(annotated.column("status").to_pylist())
    assert row["decode_seconds"] > 0
    table = pq.read_table(block_path(plan, 0))
    assert table.schema.equals(plan.tables.written)
    assert table.schema.metadata == plan.tables.output.metadata
    assert table.column("image_id").equals(annotated.column("image_id"))


def test_several_blocks_that_come_together_are_written_apart(operators, plan, both):
    assert operators.writer(plan)(both).column("rows").to_pylist() == [5, 3]
    assert [len(pq.read_table(block_path(plan, number))) for number in (0, 1)] == [5, 3]


def test_writing_a_block_again_leaves_one_file_with_the_same_rows(operators, plan, annotated):
    files = []
    for _ in range(2):
        operators.writer(plan)(annotated)
        (name,) = plan.output.names(plan.rows_folder)
        files.append(pq.read_table(plan.output.absolute(f"{plan.rows_folder}/{name}")))
    assert files[0].equals(files[1])


def test_the_blocks_that_are_done_are_those_with_a_whole_file():
    output = OutputFolder("memory://blocks-test", {})
    names = ("block-00000007.parquet", "block-00000002.parquet", ".block-00000003.parquet.4af", "block-00000004.parquet.tmp", "notes")
    for name in names:
        output.write(f"rows/{name}", b"1234")
    assert write.block_sizes(output, "rows", 9).tolist() == [-1, -1, 4, -1, -1, -1, -1, 4, -1]
    assert write.block_sizes(output, "rows", 7).tolist() == [-1, -1, 4, -1, -1, -1, -1]  # nor is one done that the run does not have


def test_nothing_is_done_before_anything_is_written(tmp_path):
    assert write.block_sizes(OutputFolder(str(tmp_path), {}), "rows", 2).tolist() == [-1, -1]
