"""Verification of a run's blocks, and the table's files made of them."""

import datetime as dt
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.run.plan import prepare
from pipeline.stages import dedup, merge, write
from pipeline.stages.merge import Gatherer, VerificationError, groups
from pipeline.table.output_folder import OutputFolder
from tests.plugins.operators import block_path


@pytest.fixture(scope="module")
def written(corpus, tmp_path_factory, operators):
    """An output whose blocks are all written, and nothing committed."""
    output = tmp_path_factory.mktemp("commit")
    operators.do(prepare(AnnotateConfig(input=str(corpus.folder), output=str(output), run_id="r", block_rows=10)))
    return output


@pytest.fixture
def plan(corpus, written, tmp_path):
    """The same, to be altered."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    plan = prepare(AnnotateConfig(input=str(corpus.folder), output=str(tmp_path), run_id="r", block_rows=10))
    assert plan.todo == ()
    return plan


@pytest.fixture
def gatherer(plan):
    return Gatherer(plan.output, plan.rows_folder, plan.manifest, plan.tables)


def test_blocks_become_a_file_with_all_their_rows_in_order(plan, gatherer, corpus):
    result = gatherer("annotations/dt=2026-01-02/part-r-0123abcd-00000.parquet", [0, 1, 2, 3])
    table = pq.read_table(f"{plan.output.root}/{result['file']}", partitioning=None)
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


def test_gathering_again_leaves_the_same_one_file(plan, gatherer):
    assert gatherer("annotations/part.parquet", [0, 1]) == gatherer("annotations/part.parquet", [0, 1])
    assert len(plan.output.names("annotations")) == 1


def alter(plan, block, change):
    path = block_path(plan, block)
    pq.write_table(change(pq.read_table(path)), path)


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
def test_a_block_that_is_not_the_manifests_is_not_committed(plan, gatherer, change, message):
    alter(plan, 1, change)
    with pytest.raises(VerificationError, match=message):
        gatherer("annotations/part.parquet", [0, 1])
    assert not plan.output.exists("annotations/part.parquet")
    assert prepare(plan.config).todo == (1,)


def test_a_block_whose_file_is_broken_is_done_again(plan, gatherer):
    spoiled = bytearray(Path(block_path(plan, 2)).read_bytes())
    columns = pq.read_metadata(block_path(plan, 2)).row_group(0)
    start = next(columns.column(i).data_page_offset for i in range(columns.num_columns) if columns.column(i).path_in_schema == "uri")
    spoiled[start : start + 60] = bytes(60)
    for number, data in ((0, b"no Parquet"), (2, b""), (2, bytes(spoiled))):
        Path(block_path(plan, number)).write_bytes(data)
        with pytest.raises(VerificationError, match=f"block {number} is broken: .*; the same --run-id does it again"):
            gatherer("annotations/part.parquet", [number, 1])
    assert prepare(plan.config).todo == (0, 2)


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-9], lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:]], ids=["cut", "flipped"]
)
def test_a_file_that_the_storage_spoiled_is_not_committed(plan, gatherer, monkeypatch, spoil, tmp_path):
    def upload(folder, file, path, upload=OutputFolder.upload):
        spoiled = tmp_path / "spoiled"
        spoiled.write_bytes(spoil(Path(file).read_bytes()))
        upload(folder, str(spoiled), path)

    monkeypatch.setattr(OutputFolder, "upload", upload)
    with pytest.raises(VerificationError, match=r"annotations/part\.parquet does not read back"):
        gatherer("annotations/part.parquet", [0, 1])


def test_the_blocks_of_another_block_are_not_committed(plan, gatherer):
    shutil.copy(block_path(plan, 0), block_path(plan, 2))
    with pytest.raises(VerificationError, match="block 2"):
        gatherer("annotations/part.parquet", [2])


def test_a_block_that_was_not_written_is_missed(plan):
    for number in (2, 3):
        Path(block_path(plan, number)).unlink()
    with pytest.raises(VerificationError, match="2 of 4 blocks were not written, the first 2"):
        groups(plan.output, plan.rows_folder, plan.manifest)


def test_a_files_rows_lie_in_groups_of_whole_blocks(plan, gatherer, monkeypatch):
    monkeypatch.setattr(merge, "GROUP_ROWS", 20)
    whole = gatherer("annotations/part.parquet", [0, 1, 2, 3])
    about = pq.read_metadata(f"{plan.output.root}/annotations/part.parquet")
    assert [about.row_group(i).num_rows for i in range(about.num_row_groups)] == [20, 20]
    monkeypatch.setattr(merge, "GROUP_ROWS", 19)
    assert gatherer("annotations/part.parquet", [0, 1, 2, 3]) == whole
    assert pq.read_metadata(f"{plan.output.root}/annotations/part.parquet").num_row_groups == 4


@pytest.mark.parametrize("size", [0, 9, 10, 11, 30])
def test_a_file_is_read_back_in_pieces(tmp_path, monkeypatch, size):
    monkeypatch.setattr(merge, "PIECE", 10)
    output = OutputFolder(str(tmp_path), {})
    data, local = bytes(range(size)), tmp_path / "local"
    output.write("file", data)
    local.write_bytes(data)
    assert merge._reads_back(output, "file", str(local))
    for other in (data + b"x", data[:-1] + b"x", data[1:] or b"x"):
        local.write_bytes(other)
        assert not merge._reads_back(output, "file", str(local))


def test_a_small_run_is_one_file(plan):
    assert groups(plan.output, plan.rows_folder, plan.manifest) == [[0, 1, 2, 3]]


def test_files_are_cut_where_they_reach_their_size(plan, monkeypatch):
    sizes = write.done_blocks(plan.output, plan.rows_folder)
    monkeypatch.setattr(merge, "FILE_BYTES", max(sizes.values()) + 1)
    assert groups(plan.output, plan.rows_folder, plan.manifest) == [[0, 1], [2, 3]]
    monkeypatch.setattr(merge, "FILE_BYTES", 1)
    assert groups(plan.output, plan.rows_folder, plan.manifest) == [[0], [1], [2], [3]]


def test_files_are_cut_where_they_reach_their_rows(plan, monkeypatch):
    monkeypatch.setattr(merge, "FILE_ROWS", 30)
    assert groups(plan.output, plan.rows_folder, plan.manifest) == [[0, 1, 2], [3]]


# --- images that were posted before


@pytest.fixture(scope="module")
def posted(images, tmp_path_factory):
    """Three blocks of four: the second copies from itself and from the first, the third, also what is no image, from the first."""
    folder = tmp_path_factory.mktemp("posted")
    seeds = {"0a": 1, "0b": 2, "0c": 3, "1a": 4, "1b": 4, "1c": 1, "1d": 5, "2a": 1, "2b": 2, "2c": 6}
    for name, seed in seeds.items():
        (folder / f"{name}.jpg").write_bytes(images.jpeg(seed))
    for name in ("0d.jpg", "2d.jpg"):
        (folder / name).write_bytes(b"no image")
    return folder


@pytest.fixture
def copying(posted, operators, tmp_path):
    """A plan whose blocks are written and know of each other's images."""
    plan = prepare(AnnotateConfig(input=str(posted), output=str(tmp_path), run_id="copying", block_rows=4, keep_embeddings=True))
    with operators.sharing():
        operators.do(plan)
    return plan


@pytest.fixture
def alone(posted, operators, tmp_path_factory):
    """The rows of the same images, each of which was annotated for itself."""
    output = str(tmp_path_factory.mktemp("alone"))
    plan = prepare(AnnotateConfig(input=str(posted), output=output, run_id="alone", block_rows=1, keep_embeddings=True))
    return operators.rows(plan)


def same(ours, theirs, rows):
    """Whether two tables say the same, the embeddings and what is not compared by labels included."""
    assert rows.differences(ours, theirs, rows.file_name) == []
    plain = ("image_id", "uri", "content_hash", "width", "height", "bytes", "status", "error", "model")
    assert [[row[name] for name in plain] for row in ours] == [[row[name] for name in plain] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert (a["embedding"] is None) == (b["embedding"] is None)
        assert a["embedding"] is None or a["embedding"] == pytest.approx(b["embedding"], abs=5e-3)


def test_a_repost_has_all_that_was_said_of_its_bytes_and_keeps_what_is_its_own(copying, alone, operators, rows):
    assert pq.read_table(block_path(copying, 2))["status"].to_pylist() == ["repost", "repost", "ok", "repost"]
    result = operators.gather(copying, "annotations/part.parquet", [0, 1, 2])
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
    operators.gather(copying, "annotations/b.parquet", [1, 2])
    same(pq.read_table(f"{copying.output.root}/annotations/b.parquet").to_pylist(), alone[4:], rows)
    assert sorted(path.rpartition("/")[2] for path in seen) == [write.file_name(number) for number in range(3)]


def test_what_an_earlier_run_said_is_copied_from_its_file(copying, alone, posted, operators, rows, monkeypatch, tmp_path):
    """Of a file in several groups of rows, which hold copies themselves."""
    monkeypatch.setattr(merge, "GROUP_ROWS", 4)
    operators.gather(copying, "annotations/earlier.parquet", [0, 1, 2])

    class Past:
        def keys(self):
            column = pq.read_table(f"{copying.output.root}/annotations/earlier.parquet", columns=["content_hash"])["content_hash"]
            yield "annotations/earlier.parquet", dedup.keys_of(column)

    plan = prepare(copying.config.model_copy(update={"run_id": "later"}))
    with operators.sharing(Past()):
        operators.do(plan)
    result = operators.gather(plan, "annotations/part.parquet", [0, 1, 2])
    assert result["reposts"] == {"run": 0, "earlier": 12}
    found = pq.read_table(f"{plan.output.root}/annotations/part.parquet").to_pylist()
    same(found, alone, rows)
    assert {row["run_id"] for row in found} == {"later"}
    (tmp_path / "annotations" / "earlier.parquet").unlink()
    assert operators.gather(plan, "annotations/again.parquet", [0, 2]) == {"again": [0, 2]}
    (tmp_path / "annotations" / "earlier.parquet").write_bytes(b"no Parquet")
    assert operators.gather(plan, "annotations/again.parquet", [1]) == {"again": [1]}
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
    with operators.sharing(dedup.Past(second.output, second.rows_folder, (), second.tables, "fp32", None, since)):
        operators.do(second)
        copied = operators.gather(second, "annotations/part.parquet", [0, 1, 2])
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
        alter(copying, 0, change)
    assert operators.gather(copying, "annotations/part.parquet", [1, 2]) == {"again": [1, 2]}
    assert not copying.output.exists("annotations/part.parquet")
    operators.do(copying, [1])  # alone
    assert operators.gather(copying, "annotations/part.parquet", [1])["reposts"] == {"run": 1, "earlier": 0}
    assert operators.gather(copying, "annotations/rest.parquet", [2]) == {"again": [2]}


def test_bytes_whose_keys_are_the_same_are_never_taken_for_each_other(copying, operators):
    """Hashes of which the first 8 bytes agree: the second block's first image is taken for the first block's."""
    alter(copying, 2, lambda rows: rows.set_column(0, rows.field(0), [["block-00000000.parquet"] * 4]))
    assert operators.gather(copying, "annotations/part.parquet", [0, 1, 2]) == {"again": [2]}
