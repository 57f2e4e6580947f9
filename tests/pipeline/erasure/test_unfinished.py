"""Erasing beside runs that are not committed: dead ones that are resumed, and one that is at work."""

import hashlib

import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.erasure.erase import EraseJob
from pipeline.run import execute
from pipeline.run.plan import prepare
from pipeline.table.commit import committing_path
from pipeline.table.output_folder import OutputFolder
from pipeline.table.suppressed import read_list
from tests.plugins.operators import block_path
from tests.plugins.posts import NAMES

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def folder(tmp_path, images):
    """Twelve images: 06 to 11 have the bytes of 00 to 05."""
    (tmp_path / "in").mkdir()
    for i in range(12):
        (tmp_path / "in" / f"{i:02}.jpg").write_bytes(images.jpeg(i % 6, 60, 50))
    return tmp_path / "in"


def config_of(folder, name="r", **settings):
    settings = {"date": "2026-01-02", "block_rows": 4, "report_images": False, "input": str(folder)} | settings
    return AnnotateConfig(output=str(folder.parent / "out"), run_id=name, **settings)


def uri(folder, number):
    return f"file://{folder}/{number:02}.jpg"


def digest(folder, number):
    return hashlib.sha256((folder / f"{number:02}.jpg").read_bytes()).hexdigest()


def erase(folder, *entries):
    (folder.parent / "list.txt").write_text("\n".join(entries))
    job = EraseJob(OutputFolder(str(folder.parent / "out"), {}), *read_list(str(folder.parent / "list.txt"), {}))
    return job, list(job.run())


def numbers(found):
    return sorted(int(row["uri"][-6:-4]) for row in found)


def test_a_run_that_is_resumed_has_no_row_of_what_was_erased_meanwhile(folder, operators, annotate_here, rows):
    """Neither of blocks that were written, nor of others; not even its work names the images any more."""
    plan = prepare(config_of(folder))
    with operators.sharing():
        operators.do(plan, [0, 1])
    job, erased = erase(folder, uri(folder, 1), uri(folder, 9), digest(folder, 2))
    assert [(each.run_id, each.date, each.rows) for each in erased] == [("r", None, 3)]  # 08 has no hash yet
    assert job.remaining == []
    work = folder.parent / "out" / "_work" / "r"
    data = b"".join(path.read_bytes() for path in work.rglob("*.parquet"))
    assert not any(name in data for name in (b"/01.jpg", b"/09.jpg"))
    assert b"/03.jpg" in data
    assert digest(folder, 2).encode() not in data
    assert pq.read_table(block_path(plan, 0))["status"].to_pylist() == ["ok", "suppressed", "suppressed", "ok"]
    record = annotate_here(config_of(folder))
    assert numbers(rows.of(folder.parent / "out", record)) == [0, 3, 4, 5, 6, 7, 10, 11]
    assert (record.counts.listed, record.counts.suppressed, record.counts.rows) == (12, 4, 8)
    assert record.suppressed == (job.about,)


def test_a_run_at_work_leaves_out_what_is_erased_beside_it(folder, annotate_here, rows, monkeypatch):
    """Its operators know nothing of it: rows are left out as blocks are merged."""
    annotate = execute.annotate_blocks

    def annotate_and_erase(plan, *others):
        work = annotate(plan, *others)
        erase(folder, uri(folder, 1), digest(folder, 2))
        return work

    monkeypatch.setattr(execute, "annotate_blocks", annotate_and_erase)
    record = annotate_here(config_of(folder))
    assert numbers(rows.of(folder.parent / "out", record)) == [0, 3, 4, 5, 6, 7, 9, 10, 11]
    assert record.counts.suppressed == 3


def test_an_erasure_between_a_runs_last_look_and_its_record_says_that_it_is_to_be_repeated(folder, annotate_here, rows, monkeypatch):
    from pipeline.run import driver

    record_of, jobs = driver.record_of, []

    def record_late(plan, result):
        jobs.append(erase(folder, uri(folder, 1))[0])
        return record_of(plan, result)

    monkeypatch.setattr(driver, "record_of", record_late)
    record = annotate_here(config_of(folder))
    assert 1 in numbers(rows.of(folder.parent / "out", record))
    assert "run r was about to be committed: finish it, or remove it by `ugrie clean`" in jobs[0].remaining
    assert any(
        "1 rows of" in line and line.endswith("run r is not committed: finish it, or remove it by `ugrie clean`")
        for line in jobs[0].remaining
    )
    assert [(each.run_id, each.rows) for each in erase(folder, uri(folder, 1))[1]] == [("r", 1)]
    assert not (folder.parent / "out" / committing_path("r")).exists()


def test_posts_of_an_erased_image_name_nothing_in_the_work_of_a_run(posts, operators, annotate_here, rows, tmp_path):
    source, column = posts.write("parquet", tmp_path / "in" / "posts")
    settings = {"keep_columns": NAMES, "column": column, "report_images": False, "block_rows": 32, "run_id": "r"}
    config = AnnotateConfig(input=source, output=str(tmp_path / "out"), **settings)
    plan = prepare(config)
    with operators.sharing():
        operators.do(plan, [0, 1])
    gone = {post["post_id"]: post["user_id"] for post in posts.rows if post["image"] == "017.jpg"}
    assert len(gone) == 2
    erase(tmp_path / "in", f"file://{posts.folder}/017.jpg")
    data = b"".join(path.read_bytes() for path in (tmp_path / "out" / "_work" / "r").rglob("*.parquet"))
    assert not any(str(user).encode() in data for user in gone.values() if user)
    found = rows.of(tmp_path / "out", annotate_here(config))
    assert {row["post_id"] for row in found} == {post["post_id"] for post in posts.rows} - set(gone)


def test_a_run_from_embeddings_is_named_until_it_is_done_or_gone(folder, annotate_here):
    annotate_here(config_of(folder, keep_embeddings=True))
    out = folder.parent / "out"
    prepare(config_of(folder, "again", input=str(out), from_embeddings=True, reannotate=True))
    job, erased = erase(folder, uri(folder, 1))
    assert [(each.run_id, each.rows) for each in erased] == [("again", 1), ("r", 1)]
    assert job.remaining == ["run again annotates embeddings again: finish it, or remove it by `ugrie clean`"]
