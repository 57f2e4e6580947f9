"""Verification of a run's blocks, the table's files, the record."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import blocks, commit
from pipeline.commit import Gatherer, VerificationError, groups
from pipeline.config import AnnotateConfig
from pipeline.plan import prepare
from pipeline.storage import connect, write_atomic
from ugrie.schemes import load_scheme


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
def gather(plan):
    return Gatherer(plan.config.output, plan.rows_folder, {}, plan.manifest, plan.tables)


def test_blocks_become_a_file_with_all_their_rows_in_order(plan, gather, corpus):
    result = gather("annotations/dt=2026-01-02/part-r-0123abcd-00000.parquet", [0, 1, 2, 3])
    table = pq.read_table(f"{plan.root}/{result['file']}", partitioning=None)
    wanted = pa.concat_tables(plan.manifest.read(plan.fs, block) for block in range(4))
    assert table.schema.equals(plan.tables.output)
    assert table.schema.metadata == plan.tables.output.metadata
    assert table.column("image_id").equals(wanted.column("image_id"))
    assert result["rows"] == len(table) == 40
    statuses = list(corpus.status.values())
    assert result["status"] == {status: statuses.count(status) for status in statuses}
    for scheme in plan.tables.schemes:
        assert list(result["labels"][scheme.name]) == list(scheme.label_names)
        assert sum(result["labels"][scheme.name].values()) == statuses.count("ok")


def test_gathering_again_leaves_the_same_one_file(plan, gather):
    assert gather("annotations/part.parquet", [0, 1]) == gather("annotations/part.parquet", [0, 1])
    assert len(plan.fs.ls(f"{plan.root}/annotations")) == 1


def alter(plan, block, change):
    path = blocks.path(plan.rows_folder, block)
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.slice(1), "block 1 holds 9 rows that are not the manifest's 10"),
        (lambda rows: pa.concat_tables([rows, rows]), "block 1 holds 20 rows"),
        (lambda rows: rows.take(list(reversed(range(10)))), "block 1 holds 10 rows that are not the manifest's 10"),
        (lambda rows: rows.drop_columns("sentence"), "block 1 holds 10 rows .* or not in the run's schema"),
        (
            lambda rows: rows.set_column(rows.schema.get_field_index("bytes"), "bytes", rows.column("bytes").cast(pa.float64())),
            "block 1 holds 10 rows .* or not in the run's schema",
        ),
    ],
    ids=["a row less", "twice", "another order", "no sentence", "another type"],
)
def test_a_block_that_is_not_the_manifests_is_not_committed(plan, gather, change, message):
    alter(plan, 1, change)
    with pytest.raises(VerificationError, match=message):
        gather("annotations/part.parquet", [0, 1])
    assert not plan.fs.exists(f"{plan.root}/annotations/part.parquet")
    assert prepare(plan.config).todo == (1,)


def test_a_block_whose_file_is_broken_is_done_again(plan, gather):
    for number, data in ((0, b"no Parquet"), (2, b"")):
        plan.fs.pipe_file(blocks.path(plan.rows_folder, number), data)
        with pytest.raises(VerificationError, match=f"block {number} is broken: .*; the same --run-id does it again"):
            gather("annotations/part.parquet", [number, 1])
    assert prepare(plan.config).todo == (0, 2)


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-9], lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:]], ids=["cut", "flipped"]
)
def test_a_file_that_the_storage_spoiled_is_not_committed(plan, gather, monkeypatch, spoil):
    monkeypatch.setattr(commit, "write_atomic", lambda fs, path, data: write_atomic(fs, path, spoil(data)))
    with pytest.raises(VerificationError, match=r"annotations/part\.parquet does not read back"):
        gather("annotations/part.parquet", [0, 1])


def test_the_blocks_of_another_block_are_not_committed(plan, gather):
    plan.fs.copy(blocks.path(plan.rows_folder, 0), blocks.path(plan.rows_folder, 2))
    with pytest.raises(VerificationError, match="block 2"):
        gather("annotations/part.parquet", [2])


def test_a_block_that_was_not_written_is_missed(plan):
    for number in (2, 3):
        plan.fs.rm(blocks.path(plan.rows_folder, number))
    with pytest.raises(VerificationError, match="2 of 4 blocks were not written, the first 2"):
        groups(plan.fs, plan.rows_folder, plan.manifest)


def test_a_small_run_is_one_file(plan):
    assert groups(plan.fs, plan.rows_folder, plan.manifest) == [[0, 1, 2, 3]]


def test_files_are_cut_where_they_reach_their_size(plan, monkeypatch):
    sizes = blocks.done(plan.fs, plan.rows_folder)
    monkeypatch.setattr(commit, "FILE_BYTES", max(sizes.values()) + 1)
    assert groups(plan.fs, plan.rows_folder, plan.manifest) == [[0, 1], [2, 3]]
    monkeypatch.setattr(commit, "FILE_BYTES", 1)
    assert groups(plan.fs, plan.rows_folder, plan.manifest) == [[0], [1], [2], [3]]


def test_labels_are_counted_also_those_that_were_never_given():
    scheme = load_scheme("polarity3")
    readings = [{"label": "positive"}, None, {"label": "positive"}, {"label": "negative"}]
    column = pa.chunked_array(
        [pa.array(readings[:2], pa.struct({"label": pa.string()})), pa.array(readings[2:], pa.struct({"label": pa.string()}))]
    )
    assert commit.count_labels(scheme, column) == {"negative": 1, "neutral": 0, "positive": 2}


def test_an_ordinal_value_counts_for_the_nearest_label():
    scheme = load_scheme("valence")
    readings = [{"value": value} for value in (1.0, 1.4, 5.2, 9.0)] + [None]
    column = pa.chunked_array([pa.array(readings, pa.struct({"value": pa.float32()}))])
    assert list(commit.count_labels(scheme, column).values()) == [2, 0, 0, 0, 1, 0, 0, 0, 1]


def test_the_counts_of_all_files_are_added():
    scheme = load_scheme("polarity2")
    one = {"rows": 3, "status": {"ok": 2, "corrupt": 1}, "labels": {"polarity2": {"negative": 2, "positive": 0}}}
    other = {"rows": 2, "status": {"missing": 1, "ok": 1}, "labels": {"polarity2": {"negative": 0, "positive": 1}}}
    one["reposts"], other["reposts"] = {"run": 1, "earlier": 0}, {"run": 1, "earlier": 2}
    total = commit.add([one, other], [scheme])
    assert total == {
        "rows": 5,
        "status": {"ok": 3, "corrupt": 1, "missing": 1},
        "reposts": {"run": 2, "earlier": 2},
        "labels": {"polarity2": {"negative": 2, "positive": 1}},
    }
    assert next(iter(total["status"])) == "ok"


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_the_record_is_json_under_its_runs_name(tmp_path, kind):
    fs, root = connect(str(tmp_path) if kind == "local" else "memory://commit-test", {})
    record = {"run_id": "r-1", "input": "s3://bucket/é"}
    assert commit.write_record(fs, root, record) == record
    path = f"{root}/runs/r-1.json"
    assert json.loads(fs.cat_file(path)) == record
    assert "é".encode() in fs.cat_file(path)
    assert commit.write_record(fs, root, record | {"input": "another driver's"}) == record
    assert json.loads(fs.cat_file(path)) == record


def test_a_file_of_the_table_names_its_run():
    named = {
        "o/annotations/dt=2026-01-02/part-r-0123abcd-00000.parquet": "r",
        "part-r-0123abcd-0123abcd-00000.parquet": "r-0123abcd",
        ".part-r.s-0123abcd-00017.parquet." + "0" * 32: "r.s",
    }
    assert {name: commit.part_of(name) for name in named} == named
    for name in (
        "part-r-00000.parquet",
        "part-r-0123abcd-00000.csv",
        "spark-part-r-0123abcd-00000.parquet",
        "part--0123abcd-00000.parquet",
    ):
        assert commit.part_of(name) is None


def test_what_a_committed_run_left_is_removed_and_nothing_else(tmp_path):
    fs, root = connect(str(tmp_path), {})
    folder = "annotations/dt=2026-01-02"
    kept = [
        f"{folder}/part-r-aaaaaaaa-00000.parquet",
        f"{folder}/part-r-bbbbbbbb-cccccccc-00000.parquet",  # of the run r-bbbbbbbb
        f"{folder}/notes.parquet",
        "annotations/dt=2026-01-03/part-r-bbbbbbbb-00000.parquet",  # not of this run: it has another date
        "_work/other/plan.json",
        "runs/r.json",
    ]
    gone = [
        f"{folder}/part-r-bbbbbbbb-00000.parquet",
        f"{folder}/.part-r-bbbbbbbb-00001.parquet.{'0' * 32}",
        "_work/r/plan.json",
        "_work/r/rows/block-00000000.parquet",
    ]
    for name in kept + gone:
        fs.makedirs(fs._parent(f"{root}/{name}"), exist_ok=True)
        fs.pipe_file(f"{root}/{name}", b"x")
    commit.tidy(fs, root, {"run_id": "r", "date": "2026-01-02", "files": kept[:1]})
    assert sorted(name.removeprefix(f"{root}/") for name in fs.find(root)) == sorted(kept)


def test_a_run_stays_committed_where_what_it_left_cannot_be_removed(tmp_path, monkeypatch, caplog):
    fs, root = connect(str(tmp_path), {})
    fs.makedirs(f"{root}/_work/r")
    monkeypatch.setattr(type(fs), "rm", lambda *_, **__: (_ for _ in ()).throw(PermissionError("no")))
    commit.tidy(fs, root, {"run_id": "r", "date": "2026-01-02", "files": []})
    assert "jobs/clean.py does" in caplog.text
