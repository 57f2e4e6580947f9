"""What follows when all blocks are written: merging, and whether the run may be committed. Ray is left out."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.run import execute
from pipeline.run.driver import record_of
from pipeline.run.plan import prepare
from pipeline.stages import merge
from pipeline.table import run_record
from pipeline.table.commit import commit, tidy
from pipeline.table.run_record import past_runs
from pipeline.table.stats import FailuresError
from tests.plugins.in_process import without_ray


@pytest.fixture(autouse=True)
def _without_ray():
    with without_ray():
        yield


@pytest.fixture
def plan(tmp_path):
    """Return a function that plans a run over 20 URIs and writes its blocks, of 5 rows each; the images of some numbers are missing."""

    def begin(run_id, missing=(), **settings):
        (tmp_path / "list.csv").write_text("\n".join(["uri", *(f"{i}.jpg" for i in range(20))]))
        config = AnnotateConfig(input=str(tmp_path / "list.csv"), output=str(tmp_path / "out"), run_id=run_id, block_rows=5, **settings)
        write_blocks(planned := prepare(config), missing)
        return planned

    return begin


def write_blocks(plan, missing=()):
    for block in plan.todo:
        listed = plan.manifest.read(plan.output, block)
        rows = [{"image_id": row["image_id"], "uri": row["uri"], "status": "ok"} for row in listed.to_pylist()]
        for row in rows:
            number = int(row["uri"].rpartition("/")[2].removesuffix(".jpg"))
            row |= {"model": plan.tables.model, "run_id": plan.config.run_id, "annotated_at": 0}
            row |= {"status": "missing", "error": "gone"} if number in missing else {}
        path = f"{plan.output.root}/{plan.rows_folder}/block-{block:08}.parquet"
        plan.output.fs.makedirs(f"{plan.output.root}/{plan.rows_folder}", exist_ok=True)
        columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in plan.tables.written]
        pq.write_table(pa.table(columns, plan.tables.written), path)


def finish(plan):
    return commit(plan.output, record_of(plan, execute.execute(prepare(plan.config))))


def committed_uris(plan):
    files = [file for record in past_runs(plan.output) for file in record.files]
    tables = [pq.read_table(f"{plan.output.root}/{file}", partitioning=None, columns=["uri"]) for file in files]
    return sorted(uri for table in tables for uri in table["uri"].to_pylist())


def test_a_night_in_which_every_image_failed_is_not_committed_and_is_tried_again(plan):
    first = plan("r", missing=range(20), max_failed_ratio=1.0)
    with pytest.raises(FailuresError, match=r"none of 20 new images could be annotated \(20 missing\)"):
        execute.execute(prepare(first.config))
    assert not first.output.exists("runs")
    again = prepare(first.config)
    assert again.todo.tolist() == [0, 1, 2, 3]
    write_blocks(again, missing=[3])
    assert finish(again).counts.status == {"ok": 19, "missing": 1}
    later = plan("later", missing=[3])
    assert (later.manifest.known, later.manifest.retried, later.manifest.rows) == (19, 1, 1)
    assert finish(later).counts.retried == {"missing": 1}


def test_of_a_run_with_too_many_failures_only_blocks_whose_failures_may_pass_are_done_again(plan):
    first = plan("r", missing=range(4, 16))
    with pytest.raises(FailuresError, match=r"12 of 20 new images failed \(12 missing\), more than max_failed_ratio = 0\.5"):
        execute.execute(prepare(first.config))
    assert prepare(first.config).todo.tolist() == [0, 1, 2, 3]
    write_blocks(prepare(first.config), missing=range(10, 20))
    assert finish(first).counts.status == {"ok": 10, "missing": 10}


def test_a_run_that_goes_on_after_another_committed_annotates_no_image_twice(plan):
    older = plan("older")
    newer = plan("newer", missing=[19], limit=20)
    assert finish(newer).counts.rows == 20
    older = prepare(older.config)
    record = finish(older)
    assert (record.counts.rows, record.counts.overtaken, record.counts.listed) == (1, 19, 20)
    assert len(committed_uris(older)) == 21  # 19.jpg failed in the newer run
    assert finish(plan("third")).counts.known == 20


def test_a_run_of_which_nothing_is_left_is_committed_without_rows(plan):
    older, newer = plan("older"), plan("newer")
    finish(newer)
    record = finish(older)
    assert (record.counts.rows, record.counts.overtaken, record.files) == (0, 20, ())
    assert len(committed_uris(older)) == len(set(committed_uris(older))) == 20


def test_a_run_that_is_overtaken_while_its_blocks_are_merged_merges_them_once_more(plan, monkeypatch):
    older, newer = plan("older"), plan("newer", limit=7)
    merge_files, merges = execute._merge_files, []

    def overtake(*given):
        merges.append(given[0].config.run_id)
        result = merge_files(*given)
        if merges == ["older"]:
            finish(newer)
        return result

    monkeypatch.setattr(execute, "_merge_files", overtake)
    record = finish(older)
    assert merges == ["older", "newer", "older"]
    assert (record.counts.rows, record.counts.overtaken) == (13, 7)
    assert len(committed_uris(older)) == len(set(committed_uris(older))) == 20


def test_a_run_that_annotates_everything_again_keeps_all_its_rows(plan):
    older, newer = plan("older", reannotate=True), plan("newer")
    finish(newer)
    assert finish(older).counts.rows == 20


def test_a_run_of_more_files_than_a_record_lists_is_committed_once_and_known_later(plan, monkeypatch):
    """Two drivers are about to commit it at once."""
    monkeypatch.setattr(merge, "FILE_ROWS", 5)
    monkeypatch.setattr(run_record, "MAX_FILES", 3)
    first = plan("r", missing=[3])
    drivers = [record_of(again := prepare(first.config), execute.execute(again)) for _ in range(2)]
    committed = [commit(first.output, record) for record in drivers]
    assert committed[0] == committed[1] == past_runs(first.output)[0]
    assert (len(committed[0].files), len(committed[0].file_lists)) == (4, 2)
    assert (committed[0].counts.rows, committed[0].counts.status) == (20, {"ok": 19, "missing": 1})
    written = first.output.read_json("runs/r.json")
    assert (written["files"], written["schema_version"]) == ([], 3)
    assert len(first.output.names("runs/r.files")) == 4
    tidy(first.output, committed[1])
    assert set(first.output.find("runs")) == {"r.json", *(path.removeprefix("runs/") for path in committed[0].file_lists)}
    assert {f"annotations/{path}" for path in first.output.find("annotations")} == set(committed[0].files)
    assert len(set(committed_uris(first))) == 20
    later = plan("later")
    assert (later.manifest.known, later.manifest.rows) == (19, 1)
    assert finish(later).counts.retried == {"ok": 1}
    assert "file_lists" not in first.output.read_json("runs/later.json")
