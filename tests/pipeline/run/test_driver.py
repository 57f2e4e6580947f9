"""Runs from plan to record. What depends on the files alone runs without Ray."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from ray.data.exceptions import SystemException
from ray.exceptions import RayError

from pipeline.config import AnnotateConfig
from pipeline.errors import StorageError
from pipeline.run import driver, execute, graph
from pipeline.run.driver import RunError, annotate
from pipeline.run.plan import prepare
from pipeline.run.resources import allocate
from pipeline.run.summary import summary
from pipeline.stages.dedup import Deduplicator
from pipeline.stages.tracker import BlockTracker
from tests.plugins.hub import COMMIT
from tests.plugins.operators import block_path
from ugrie.model.checkpoint import digest, find

pytestmark = pytest.mark.timeout(300)


def by_id(row):
    return row["image_id"]


# --- an undisturbed run


def test_every_file_is_a_row_with_its_status(finished, corpus, rows):
    found = rows.of(finished.output, finished.record)
    assert [row["uri"] for row in found] == [f"file://{path}" for path in corpus.files]
    assert {rows.file_name(row): row["status"] for row in found} == corpus.status
    assert len({row["image_id"] for row in found}) == len(found)


def test_the_independent_checker_finds_nothing_wrong(finished, check_output):
    assert "40 rows" in check_output(finished.output, "--rows", 40)


def test_ray_says_of_every_image_what_the_operators_say_one_after_the_other(finished, corpus, operators, rows, tmp_path):
    plan = prepare(finished.config.model_copy(update={"output": str(tmp_path)}))
    assert rows.differences(rows.of(finished.output, finished.record), operators.rows(plan), by_id) == []


def test_the_record_says_what_was_done(finished, corpus, rows):
    record = finished.record
    assert record == rows.record(finished.output)
    statuses = list(corpus.status.values())
    assert record.counts.rows == 40
    assert record.counts.status == {status: statuses.count(status) for status in statuses}
    (file,) = record.files
    assert re.fullmatch(r"annotations/dt=2026-01-02/part-undisturbed-[0-9a-f]{8}-00000\.parquet", file)
    assert (record.run_id, record.date.isoformat(), record.input) == ("undisturbed", "2026-01-02", str(corpus.folder))
    assert record.started_at <= record.finished_at
    assert record.config["block_rows"] == 8
    assert "storage_options" not in record.config
    assert {"plan_seconds", "ray_seconds", "annotate_seconds", "commit_seconds", "all_decode_seconds"} <= record.timings.keys()
    assert 0 < record.timings["annotators_busy"] <= 1
    assert 0 < record.timings["loaders_busy"] <= 1
    assert record.tuning.keys() == {"device", "actors", "threads", "loaders", "batch_size"}
    assert {row["model"] for row in rows.of(finished.output, record)} == {record.model}


def test_nothing_but_the_table_the_record_and_the_pages_is_left(finished):
    files = [str(path.relative_to(finished.output)) for path in finished.output.rglob("*") if path.is_file()]
    assert sorted(files) == [*finished.record.files, "index.html", "runs/undisturbed.html", "runs/undisturbed.json"]


def test_a_run_that_is_done_is_not_done_again(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.output.rglob("*")}
    assert annotate(finished.config) == finished.record
    assert {path: path.stat().st_mtime_ns for path in finished.output.rglob("*")} == before


def test_duckdb_opens_the_table(finished):
    table = f"'{finished.output}/annotations/*/*.parquet'"
    count, dates, scores = duckdb.sql(
        f"SELECT count(*), count(DISTINCT dt), max(polarity2.score) FROM read_parquet({table}, hive_partitioning = true)"
    ).fetchall()[0]
    assert (count, dates) == (40, 1)
    assert 0.5 <= scores <= 1
    assert duckdb.sql(f"SELECT count(*) FROM {table} WHERE status <> 'ok' AND polarity2 IS NULL AND error IS NOT NULL").fetchall() == [(6,)]


def test_the_record_has_the_sum_of_each_ordinal_scheme_s_values(finished, rows):
    found = [row for row in rows.of(finished.output, finished.record) if row["status"] == "ok"]
    sums = {name: sum(row[name]["value"] for row in found) for name, kind in finished.record.schemes.items() if kind == "ordinal"}
    assert sums.keys() == {"valence", "arousal"}
    assert finished.record.counts.sums == pytest.approx(sums, abs=0.01)


def test_pandas_opens_the_table(finished, rows):
    table = pd.read_parquet(finished.output / finished.record.files[0])
    assert table["status"].value_counts()["ok"] == 34
    labels = [row["polarity2"] and row["polarity2"]["label"] for row in rows.of(finished.output, finished.record)]
    assert [value and value["label"] for value in table["polarity2"]] == labels


def test_polars_opens_the_table(finished):
    table = pl.read_parquet(f"{finished.output}/annotations/*/*.parquet")
    assert table.filter(pl.col("status") == "ok").select(pl.col("polarity2").struct.field("label").null_count()).item() == 0
    assert table.schema["image_id"] == pl.Int64


def test_only_committed_runs_are_read_as_the_docs_say(finished, tmp_path):
    """The file of a run that died lies beside them."""
    shutil.copytree(finished.output, tmp_path / "out", dirs_exist_ok=True)
    (file,) = finished.record.files
    shutil.copy(tmp_path / "out" / file, tmp_path / "out" / file.replace("undisturbed", "dead"))
    page = (Path(__file__).parents[3] / "docs" / "tables.md").read_text().partition("## Reading committed runs only")[2]
    python, sql = (re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)[1] for language in ("python", "sql"))
    namespace = {}
    exec(python.replace("OUTPUT", str(tmp_path / "out")), namespace)
    assert namespace["table"].num_rows == 40
    assert dict(duckdb.execute(sql.replace("OUTPUT", str(tmp_path / "out"))).fetchall()) == finished.record.counts.status


# --- later nights


def test_a_night_with_nothing_new_commits_a_record_of_no_rows_and_starts_no_ray(finished, tmp_path, monkeypatch, check_output):
    shutil.copytree(finished.output, tmp_path, dirs_exist_ok=True)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(execute, "ray", None)
    monkeypatch.setattr(execute, "connect_ray", lambda: pytest.fail("Ray was started"))
    config = finished.config.model_copy(update={"output": str(tmp_path), "run_id": "second"})
    record = annotate(config)
    assert (record.counts.listed, record.counts.known, record.counts.rows, record.files) == (40, 40, 0, ())
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert written == {tmp_path / "runs" / f"second.{kind}" for kind in ("html", "json")}
    assert not (tmp_path / "_work" / "second").exists()
    model = finished.record.model
    assert summary(record, str(tmp_path)) == f"nothing new: 40 images listed, all annotated before by {model}, run second"
    assert annotate(config) == record
    check_output(tmp_path, "--rows", 40)


def test_a_later_night_annotates_what_is_new_and_what_changed(images, operators, rows, tmp_path):
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(("changed.jpg", "same.jpg", "broken.jpg")):
        (tmp_path / "in" / name).write_bytes(images.jpeg(seed) if name != "broken.jpg" else b"no image")
    config = AnnotateConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out"), run_id="first")
    first = prepare(config)
    operators.commit(first)
    (tmp_path / "in" / "changed.jpg").write_bytes(images.jpeg(7, width=100))
    (tmp_path / "in" / "new.jpg").write_bytes(images.jpeg(8))
    second = prepare(config.model_copy(update={"run_id": "second"}))
    assert [rows.file_name(row) for row in rows.of(tmp_path / "out", operators.commit(second))] == ["changed.jpg", "new.jpg"]
    assert [(plan.manifest.listed, plan.manifest.known) for plan in (first, second)] == [(3, 0), (4, 2)]


# --- a run that died


def test_a_run_that_died_and_goes_on_ends_as_if_undisturbed(finished, operators, rows, tmp_path, local_ray, check_output):
    config = finished.config.model_copy(update={"output": str(tmp_path), "run_id": "died"})
    plan = prepare(config)
    operators.do(plan, [0, 3])
    (tmp_path / plan.rows_folder / ".block-00000001.parquet.4af").write_bytes(b"half a block")
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("block-*.parquet")}
    assert len(done) == 2
    record = annotate(config)
    assert rows.differences(rows.of(finished.output, finished.record), rows.of(tmp_path, record), by_id) == []
    assert record.counts == finished.record.counts
    found = rows.of(tmp_path, record)
    first_block = [row["annotated_at"] for row in found[:8]]
    assert max(first_block) < min(row["annotated_at"] for row in found[8:16])
    check_output(tmp_path, "--rows", 40, "--same-as", finished.output)


def test_a_run_that_died_before_it_was_committed_is_only_committed(finished, operators, rows, tmp_path, annotate_here):
    config = finished.config.model_copy(update={"output": str(tmp_path)})
    operators.do(prepare(config))
    record = annotate_here(config)
    assert rows.differences(rows.of(finished.output, finished.record), rows.of(tmp_path, record), by_id) == []
    assert record.counts == finished.record.counts
    assert summary(record, str(tmp_path)).startswith("34 of 40 images annotated")


def test_a_run_of_which_too_much_failed_is_not_committed_until_it_may(finished, operators, rows, tmp_path, annotate_here):
    config = finished.config.model_copy(update={"output": str(tmp_path), "run_id": "failed", "max_failed_ratio": 0.1})
    operators.do(prepare(config))
    with pytest.raises(
        RunError, match=r"run failed stopped: 6 of 40 new images failed \(.*1 corrupt.*\), more than max_failed_ratio = 0.1: .*"
    ):
        annotate_here(config)
    assert not (tmp_path / "runs").exists()
    assert list(tmp_path.glob("annotations/**/*.parquet")) == []
    record = annotate_here(config.model_copy(update={"max_failed_ratio": 0.15}))
    assert rows.differences(rows.of(finished.output, finished.record), rows.of(tmp_path, record), by_id) == []


def test_a_run_that_died_while_it_was_committed_leaves_no_second_file(finished, operators, rows, tmp_path, annotate_here, check_output):
    config = finished.config.model_copy(update={"output": str(tmp_path)})
    plan = prepare(config)
    operators.do(plan)
    folder = tmp_path / "annotations" / "dt=2026-01-02"
    name = f"annotations/dt=2026-01-02/part-undisturbed-{plan.attempt}-00000.parquet"
    operators.merge(plan, name, range(plan.manifest.blocks))
    (folder / f".part-undisturbed-{plan.attempt}-00001.parquet.{'0' * 32}").write_bytes(b"half a file")
    record = annotate_here(config)
    assert record.files != (name,)
    assert [str(path.relative_to(tmp_path)) for path in folder.iterdir()] == list(record.files)
    check_output(tmp_path, "--rows", 40, "--same-as", finished.output)


def test_a_run_that_died_before_it_tidied_up_does_so(finished, tmp_path):
    shutil.copytree(finished.output, tmp_path, dirs_exist_ok=True)
    kept = {path for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("_work/undisturbed/plan.json", "annotations/dt=2026-01-02/part-undisturbed-00000000-00000.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"left")
    assert annotate(finished.config.model_copy(update={"output": str(tmp_path)})) == finished.record
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_two_drivers_of_one_run_at_once_end_with_one_table(finished, rows, tmp_path, local_ray, check_output):
    config = finished.config.model_copy(update={"output": str(tmp_path), "run_id": "twice"})
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(annotate, [config, config])
    assert first == second == rows.record(tmp_path)
    assert rows.differences(rows.of(finished.output, finished.record), rows.of(tmp_path, first), by_id) == []
    check_output(tmp_path, "--rows", 40, "--same-as", finished.output)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4


def test_a_block_that_was_spoiled_ends_the_run_and_is_done_again(finished, operators, rows, tmp_path, local_ray, annotate_here):
    config = finished.config.model_copy(update={"output": str(tmp_path), "run_id": "spoiled"})
    plan = prepare(config)
    operators.do(plan)
    Path(block_path(plan, 2)).write_bytes(b"half a block")
    with pytest.raises(RunError, match=r"run spoiled stopped: block 2 is broken: .* with --run-id spoiled resumes it"):
        annotate(config)
    assert not (tmp_path / "runs").exists()
    record = annotate_here(config)
    assert rows.differences(rows.of(finished.output, finished.record), rows.of(tmp_path, record), by_id) == []


def test_ray_data_takes_a_run_on_gpus(finished, tmp_path, local_ray, monkeypatch):
    """The machine needs no GPU: Ray Data checks its arguments before it starts."""
    monkeypatch.setattr(execute.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    plan = prepare(finished.config.model_copy(update={"output": str(tmp_path)}))
    allocation = allocate(plan.config)
    assert (allocation.device, allocation.actor_gpus) == ("cuda", 1.0)
    assert "Annotator" in repr(graph.graph(plan, allocation, BlockTracker(), Deduplicator()))


def test_a_run_that_is_stuck_says_where_and_ends(finished, tmp_path, local_ray, monkeypatch):
    config = finished.config.model_copy(update={"output": str(tmp_path), "run_id": "stuck", "stall_timeout": 3.0})
    monkeypatch.setattr(execute, "allocate", lambda config: replace(allocate(config), actor_cpus=3.0, load=2.0))  # which can't both fit
    with pytest.raises(RunError, match=r"run stuck stopped: no block was written for \d+ s: .*of 4 CPUs.*stall_timeout = 3 s"):
        annotate(config)


def test_an_unforeseen_error_of_a_worker_is_named_by_its_cause_on_one_line():
    died = RayError(
        "The actor died because of an error raised in its creation task:\ntraceback: …\nModuleNotFoundError: No module named 'x'\n"
    )
    died.__cause__ = SystemException()
    assert "run r stopped: RayError: ModuleNotFoundError: No module named 'x'. What is" in str(driver._stopped("r", died))
    wrapped = ValueError("outer")
    wrapped.__cause__ = OSError("the cause")
    assert "run r stopped: OSError: the cause. What is" in str(driver._stopped("r", wrapped))
    foreseen = StorageError("o/x can't be written: free some space\nFailed to apply UDF transform after 1/1 attempts")
    assert "run r stopped: o/x can't be written: free some space. What is" in str(driver._stopped("r", foreseen))


# --- a model on the Hugging Face Hub


def test_the_record_states_the_commit_of_a_repositorys_revision(hub, annotate_here, rows, tmp_path):
    hub.add("ada/mine", find("ugrie-tiny"))
    (tmp_path / "in").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "in" / "a.png")
    config = AnnotateConfig(input=str(tmp_path / "in"), output=str(tmp_path / "out"), model="ada/mine", run_id="r")
    record = annotate_here(config)
    assert record.config["model"] == f"hf://ada/mine@{COMMIT}"
    assert record.model == f"ugrie-tiny@{digest(find('ugrie-tiny'))}"
    assert [row["status"] for row in rows.of(tmp_path / "out", record)] == ["ok"]
    assert annotate_here(config) == record
