"""Summary of a run's record."""

import re

import duckdb
import pytest

from pipeline.run.summary import summary
from pipeline.table.run_record import RunRecord


def record(**changes):
    labels = {"polarity2": {"negative": 1, "positive": 3}, "valence": {"bad": 0, "good": 4}}
    about = {
        "run_id": "r",
        "model": "ugrie-tiny@123",
        "date": "2026-01-02",
        "files": [f"annotations/dt=2026-01-02/part-r-0123abcd-0000{i}.parquet" for i in range(2)],
        "schemes": {"polarity2": "categorical", "valence": "ordinal"},
        "counts": {"rows": 5, "status": {"ok": 4, "corrupt": 1}, "labels": labels},
        "timings": {"plan_seconds": 1, "ray_seconds": 2, "annotate_seconds": 60, "commit_seconds": 1, "images_per_second": 2.5},
        "finished_at": "2026-01-02T03:00:00+00:00",
        "config": {},
    }
    return RunRecord.model_validate(about | changes)


def test_it_says_what_came_out_and_where_it_is():
    text = summary(record(), "s3://bucket/out/")
    assert text.startswith("4 of 5 images annotated by ugrie-tiny@123, run r\n")
    assert re.search(r"ok +4 +80.0% ", text)
    assert re.search(r"corrupt +1 +20.0% +damaged image: its decoder can't finish", text)
    assert re.search(r"polarity2 +positive 75%, negative 25%\n", text)
    assert re.search(r"valence +good 100%\n", text)
    assert "2.5 images/s while annotating; 1 min 04 s in all" in text
    assert "table   s3://bucket/out/annotations/dt=2026-01-02/part-r-0123abcd-*.parquet\n" in text
    assert "record  s3://bucket/out/runs/r.json\nreport  s3://bucket/out/runs/r.html\nnights  s3://bucket/out/index.html\n" in text


def test_rows_are_counted_where_columns_are_kept():
    for counts, said in (({}, "nothing new: 0 rows listed, all"), (record().counts.model_dump(), "4 of 5 rows annotated by ")):
        assert summary(record(counts=counts, config={"keep_columns": ["post=id"]}), "out").startswith(said)


def test_it_says_how_busy_the_workers_were_where_that_is_known():
    timings = record().timings | {"annotators_busy": 0.973, "loaders_busy": 0.4}
    assert "2.5 images/s while annotating (annotators busy 97%, loaders busy 40%); " in summary(record(timings=timings), "out")


def test_gpus_that_waited_for_images_are_said_with_what_they_lacked():
    said = "the GPUs waited for images: 12 more loaders would have kept them busy\n"
    assert said in summary(record(tuning={"loaders_missing": 12}), "out")
    assert "waited" not in summary(record(), "out")


def test_images_that_were_posted_before_are_counted_where_there_are_any():
    assert "same bytes" not in summary(record(), "out")
    for reposts, line in (
        ({"run": 0, "earlier": 0}, None),
        ({"run": 1200, "earlier": 1}, "1,201 copied from .* same bytes: 1,200 of this run, 1 of earlier runs"),
    ):
        text = summary(record(counts=record().counts.model_dump() | {"reposts": reposts}), "out")
        assert re.search(line, text) if line else "same bytes" not in text


def test_images_that_were_retried_or_annotated_by_another_run_are_counted_where_there_are_any():
    assert "retried" not in summary(record(), "out")
    counts = record().counts.model_dump() | {"retried": {"missing": 1, "ok": 2}, "overtaken": 1000}
    text = summary(record(counts=counts), "out")
    assert "  3 retried after a failure in an earlier run, 2 of them annotated now\n" in text
    assert "  1,000 more were annotated by another run meanwhile\n" in text


def test_where_nothing_was_new_it_says_so():
    text = summary(record(counts={"listed": 12345, "known": 12345, "rows": 0, "status": {}, "labels": {}}, files=[]), "out")
    assert text == "nothing new: 12,345 images listed, all annotated before by ugrie-tiny@123, run r"


def test_a_run_without_a_single_good_image_has_a_summary_too():
    labels = {"polarity2": {"negative": 0, "positive": 0}, "valence": {"bad": 0, "good": 0}}
    timings = record().timings | {"images_per_second": None}
    text = summary(record(counts={"rows": 2, "status": {"missing": 2}, "labels": labels}, timings=timings), "out")
    assert re.search(r"missing +2 +100.0% ", text)
    assert "images/s" not in text


@pytest.mark.timeout(300)
def test_the_query_it_proposes_works(finished):
    (query,) = re.findall(r"SQL     (.*)$", summary(finished.record, str(finished.output)))
    found = dict(duckdb.sql(query).fetchall())
    first = next(iter(finished.record.counts.labels))
    given = {label: count for label, count in finished.record.counts.labels[first].items() if count}
    assert {label: count for label, count in found.items() if label is not None} == given
