"""Whole runs over duplicates: each image is annotated once, and every copy says the same."""

import datetime as dt
import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.run import driver, execute
from pipeline.run.driver import RunError, annotate
from pipeline.run.plan import prepare
from pipeline.stages import merge
from tests.plugins.in_process import without_ray
from tests.plugins.operators import block_path, one_worker

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("settings", "days"), [({}, 30), ({"reuse_days": 3}, 3), ({"reuse_days": 0}, None), ({"reannotate": True}, None)])
def test_a_run_takes_the_rows_of_as_many_nights_as_it_is_told(corpus, monkeypatch, tmp_path, settings, days):
    plan = prepare(AnnotateConfig(input=str(corpus.folder), output=str(tmp_path), block_rows=16, **settings))
    monkeypatch.setattr(execute.Deduplicator, "start", staticmethod(lambda rows, loaders: rows))
    known = execute.open_dedup(replace(plan, todo=np.array([1])), one_worker())
    assert known.since == (days and plan.started_at - dt.timedelta(days=days))
    assert (known.done.tolist(), known.precision, known.folder) == ([0, 2], "fp32", plan.rows_folder)


@pytest.fixture(scope="module")
def contents(images):
    """24 files by name, of seven contents: one is corrupt and one no image. Duplicates are within blocks of six and across them."""
    kinds = [images.jpeg(i, 90 + 10 * i) for i in range(5)] + [images.jpeg(7, 300, 200)[:2000], b"no image"]
    return {f"{i:02}.jpg": kinds[(i * i + i // 6) % 7] for i in range(24)}


def folder_of(folder, contents, distinct=False):
    """Write the files. With `distinct`, each gets an extra byte that no decoder reads."""
    folder.mkdir()
    for i, (name, data) in enumerate(contents.items()):
        (folder / name).write_bytes(data + bytes([i + 1]) if distinct else data)
    return str(folder)


@pytest.fixture(scope="module")
def apart(contents, annotate_here, rows, tmp_path_factory):
    """The rows of the same images, without duplicates: no two files have the same bytes."""
    folder = tmp_path_factory.mktemp("apart")
    record = annotate_here(config_of(folder_of(folder / "in", contents, distinct=True), folder / "out", "apart"))
    assert record.counts.reposts.model_dump() == {"run": 0, "earlier": 0}
    return rows.of(folder / "out", record)


def config_of(source, output, name, **settings):
    return AnnotateConfig(input=source, output=str(output), run_id=name, date="2026-01-02", block_rows=6, keep_embeddings=True, **settings)


@pytest.fixture(scope="module")
def first_night(contents, annotate_here, tmp_path_factory):
    """An output with a committed run of these files."""
    folder = tmp_path_factory.mktemp("first")
    annotate_here(config_of(folder_of(folder / "in", contents), folder / "out", "first"))
    return folder / "out"


@pytest.fixture
def encoded(monkeypatch):
    """Return a function that counts the images a run has annotated, from its blocks, which are not removed."""
    monkeypatch.setattr(driver, "tidy", lambda *_: None)

    def count(output, name):
        files = (output / "_work" / name / "rows").glob("*.parquet")
        return sum(pq.read_table(file)["status"].to_pylist().count("ok") for file in files)

    return count


@pytest.mark.slow
def test_a_run_annotates_the_same_bytes_once_and_says_the_same_of_each_copy(
    contents, apart, encoded, annotate_here, rows, check_output, tmp_path
):
    record = annotate_here(config_of(folder_of(tmp_path / "in", contents), tmp_path / "out", "r"))
    found = rows.of(tmp_path / "out", record)
    assert rows.differences(found, apart, rows.file_name) == []
    assert [row["error"] is None for row in found] == [row["status"] == "ok" for row in found]
    assert [(row["width"], row["height"], row["embedding"] is None) for row in found] == [
        (row["width"], row["height"], row["embedding"] is None) for row in apart
    ]
    assert {row["status"] for row in found} == {"ok", "corrupt", "not_an_image"}
    assert record.counts.reposts.model_dump() == {"run": 24 - len(set(contents.values())), "earlier": 0}
    assert encoded(tmp_path / "out", "r") == 5
    assert [row["content_hash"] for row in found] == [hashlib.sha256(data).hexdigest() for data in contents.values()]
    assert len({row["image_id"] for row in found}) == 24
    check_output(tmp_path / "out", "--rows", 24)


@pytest.mark.slow
def test_a_later_night_copies_what_an_earlier_one_said(contents, apart, first_night, encoded, annotate_here, rows, check_output, tmp_path):
    """The second night's images have other names."""
    output = shutil.copytree(first_night, tmp_path / "out")
    first = rows.record(output)
    second = annotate_here(config_of(folder_of(tmp_path / "in", contents), output, "second"))
    assert second.counts.reposts.model_dump() == {"run": 0, "earlier": 24}
    assert second.counts.labels == first.counts.labels
    assert encoded(output, "second") == 0
    found = rows.of(output, second)
    assert rows.differences(found, apart, rows.file_name) == []
    assert {row["run_id"] for row in found} == {"second"}
    assert all(str(tmp_path / "in") in row["uri"] for row in found)
    check_output(output, "--rows", 48)


def test_a_night_that_another_takes_its_rows_from_may_be_gone(contents, apart, first_night, annotate_here, rows, monkeypatch, tmp_path):
    output = shutil.copytree(first_night, tmp_path / "out")
    (file,) = rows.record(output).files
    monkeypatch.setattr(merge, "block_groups", lambda *blocks, groups=merge.block_groups: (output / file).unlink() or groups(*blocks))
    record = annotate_here(config_of(folder_of(tmp_path / "in", contents), output, "second"))
    assert rows.differences(rows.of(output, record), apart, rows.file_name) == []
    assert record.counts.reposts.earlier == 0


def test_a_block_whose_owners_row_is_gone_is_done_again_by_the_run(contents, apart, operators, local_ray, rows, tmp_path):
    """An image existed when its block claimed it, and no longer when the block was begun again."""
    config = config_of(folder_of(tmp_path / "in", contents), tmp_path / "out", "r")
    plan = prepare(config)
    with operators.sharing():
        operators.do(plan)
    lost = block_path(plan, 0)
    table = pq.read_table(lost)
    for name, value in (("content_hash", None), ("status", "missing"), ("error", "gone")):
        field = table.schema.get_field_index(name)
        table = table.set_column(field, table.field(field), [[value, *table[name].to_pylist()[1:]]])
    pq.write_table(table, lost)
    found = rows.of(tmp_path / "out", annotate(config))
    assert found[0]["status"] == "missing"
    assert rows.differences(found[1:], apart[1:], rows.file_name) == []


@pytest.mark.slow
def test_two_drivers_of_one_run_that_know_different_owners_end_with_one_table(contents, apart, rows, check_output, monkeypatch, tmp_path):
    config = config_of(folder_of(tmp_path / "in", contents), tmp_path / "out", "twice")
    plans = iter([True, False])

    def prepare_in_order(config):
        plan = prepare(config)
        return replace(plan, todo=plan.todo[::-1]) if next(plans) else plan

    monkeypatch.setattr(driver, "prepare", prepare_in_order)
    with without_ray(), ThreadPoolExecutor(2) as pool:
        first, second = pool.map(annotate, [config, config])
    assert first == second == rows.record(tmp_path / "out")
    assert rows.differences(rows.of(tmp_path / "out", first), apart, rows.file_name) == []
    check_output(tmp_path / "out", "--rows", 24)


def test_a_run_that_cannot_be_mended_ends_and_says_why(contents, operators, annotate_here, monkeypatch, tmp_path):
    config = config_of(folder_of(tmp_path / "in", contents), tmp_path / "out", "r")
    plan = prepare(config)
    with operators.sharing():
        operators.do(plan)
    path = block_path(plan, 0)
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, table.field(0), [["annotations/gone.parquet"] * 6]), path)
    times = []
    monkeypatch.setattr(execute, "annotate_blocks", lambda plan, *_: times.append(plan.todo))
    with pytest.raises(
        RunError, match=r"run r stopped: \d blocks hold duplicates whose rows can't be copied from any other, the first 0\."
    ):
        annotate_here(config)
    assert len(times) == execute.REPEATS
    assert all(0 in todo for todo in times)
    monkeypatch.undo()
    assert annotate_here(config).counts.rows == 24
