"""The page of a night: its contents, its comparisons, and that untrusted text on it stays text."""

import base64
import datetime as dt
import hashlib
import logging
import re

import deltalake
import pytest

from pipeline.config import AnnotateConfig
from pipeline.report.cards import make_card
from pipeline.report.page import write, write_beside
from pipeline.table.output_folder import OutputFolder
from pipeline.table_formats import delta

ALERT = "<script>alert(1)</script>"
BREAK = '"><img src=x onerror=alert(1)>'
HOSTILE = [
    f"s3://b/{ALERT}.jpg",
    f"s3://b/{BREAK}.jpg",
    "javascript:alert(1)",
    "s3://b/{{ 7 * 7 }}.jpg",
    "s3://b/\u202egpj.exe",
    "https://evil.example/x.jpg",
]

ALLOWED = """
    html head meta title style body a header p h1 h2 h3 h4 strong nav ul li main section dl div dt dd b table caption thead tr th
    tbody td span svg g rect path line text details summary code article figure figcaption em label input img bdi br
"""


@pytest.fixture
def photos(images, tmp_path):
    """Images on disk: (URI, bytes)."""
    found = []
    for i in range(12):
        path = tmp_path / f"{i}.jpg"
        path.write_bytes(images.jpeg(i))
        found.append((f"file://{path}", path.read_bytes()))
    return found


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def page_of(output, read_page):
    def write_and_read(**asked):
        to = write(OutputFolder(str(output), {}), **asked)
        assert to.startswith(str(output)), to
        return read_page((output / to.removeprefix(f"{output}/")).read_text())

    return write_and_read


def many(count):
    return [(f"s3://b/{i}.jpg", str(i).encode()) for i in range(count)]


def test_it_says_what_ran_what_failed_and_what_the_images_evoke(page_of, output, night, photos):
    record = night(output, "2026-01-02", photos, [("s3://b/gone.jpg", "missing", "there is no such object")] * 3)
    page = page_of()
    assert page.askew == page.open == []
    assert "12 images annotated by made-up@0123; 20.0 % of the rows failed. No earlier night to compare with." in page.said
    assert "2026-01-02 01:00 UTC to 2026-01-02 01:02 UTC" in page.said
    assert "12.5 images/s" in page.said
    assert "2 min 00 s in total" in page.said
    assert "annotating 1 min 50 s" in page.said
    assert "missing 3 20.0" in page.said
    assert "there is no such object (3 images) s3://b/gone.jpg" in page.said
    for scheme, labels in record.counts.labels.items():
        for label, count in labels.items():
            assert f"{label} {count} {100 * count / 12:.1f}" in page.said, scheme
    assert "Confidence of the model, in all 15 rows " in page.said
    assert "any pair" in page.said
    assert "max_pixels 100000000" in page.said
    pictures = page.all("img")
    assert len(pictures) > 20
    assert all(picture["src"].startswith("data:image/jpeg;base64,") and ".jpg: " in picture["alt"] for picture in pictures)


def test_it_is_the_same_page_each_time(page_of, output, night, photos):
    night(output, "2026-01-02", photos)
    assert page_of().text == page_of(run_id="night-2026-01-02").text


def test_it_is_the_same_page_where_the_record_names_lists_of_files(page_of, output, night, photos, in_lists):
    night(output, "2026-01-02", photos, parts=3)
    page = page_of().text
    in_lists(OutputFolder(str(output), {}))
    assert page_of().text == page


@pytest.mark.slow
def test_drift_is_marked_and_what_chance_explains_is_not(page_of, output, night):
    for day in range(1, 6):
        night(output, f"2026-01-0{day}", many(1000), lean=1)
    night(output, "2026-01-06", many(1000), lean=3)
    moved, alike = page_of(), page_of(run_id="night-2026-01-05")
    assert "Drift in polarity3, polarity2, valence, arousal." in moved.said
    assert "4 of 4 drifted" in moved.said
    assert "No drift in 4 comparisons." in alike.said
    assert "the 5 earlier nights of the same model from 2026-01-01 to 2026-01-05, combined (5,000 rows)" in moved.said
    assert "the 4 earlier nights of the same model from 2026-01-01 to 2026-01-04" in alike.said
    assert "Distance of each night from the nights before it;" in moved.said


def test_runs_of_other_models_are_not_compared_with(page_of, output, night):
    night(output, "2026-01-01", many(50), model="other@9")
    night(output, "2026-01-02", many(50))
    assert "No earlier night to compare with." in page_of().said


def test_of_some_nights_there_is_one_page(page_of, output, night):
    for day in range(1, 5):
        night(output, f"2026-01-0{day}", many(40), [("s3://b/x.jpg", "missing", "gone")], input=f"/photos/{day}/")
    page = page_of(since=dt.date(2026, 1, 3))
    assert page.askew == page.open == []
    assert "Nights of 2026-01-03 to 2026-01-04" in page.said
    assert "80 images annotated" in page.said
    assert "2026-01-03 night-2026-01-03 /photos/3/ 41 1 12.5" in page.said
    assert "the 2 earlier nights of the same model from 2026-01-01 to 2026-01-02" in page.said
    assert "2 earlier runs read another input." in page.said
    assert (output / "runs" / "nights_2026-01-03_2026-01-04.html").exists()


def test_a_night_without_anything_new_has_a_small_page(page_of, output, night):
    night(output, "2026-01-01", many(5))
    counts = {
        "listed": 5,
        "known": 5,
        "rows": 0,
        "status": {},
        "reposts": {"run": 0, "earlier": 0},
        "labels": {"polarity2": {"negative": 0}},
    }
    night(output, "2026-01-02", many(1), counts=counts, files=[])
    page = page_of()
    assert page.askew == page.open == []
    assert "No new images: 5 images listed, all annotated before by made-up@0123." in page.said
    assert "5 listed, 5 of them annotated before, 0 new" in page.said
    assert [attributes["id"] for attributes in page.all("section")] == ["run", "settings"]


def test_a_run_of_which_no_rate_is_known_has_a_page(page_of, output, night):
    for day in (1, 2):
        night(output, f"2026-01-0{day}", many(3), timings={"plan_seconds": 1.0, "images_per_second": None}, tuning={}, precision=None)
    assert "images/s" not in page_of().said
    assert "night-2026-01-02" in page_of(since=dt.date(2026, 1, 1)).said


def test_where_the_rows_are_gone_the_page_is_of_the_record(page_of, output, night):
    record = night(output, "2026-01-02", many(50))
    (output / record.files[0]).unlink()
    page = page_of()
    assert "The rows can’t be read (FileNotFoundError" in page.said
    assert "50 images annotated" in page.said
    assert page.all("img") == []


@pytest.mark.parametrize("config", [{"report_images": False}, {"from_embeddings": True}])
def test_images_that_must_not_be_shown_or_read_are_not_fetched(page_of, output, night, photos, config):
    night(output, "2026-01-02", photos, config=config)
    page = page_of()
    assert page.all("img") == []
    assert "No images: the run’s settings turn them off" in page.said


def test_what_others_wrote_stays_text(page_of, output, night):
    failures = [(uri, "corrupt", f"{ALERT}</style></svg>{BREAK}{uri}") for uri in HOSTILE] + [("s3://b/x", f"<b>{BREAK}", "odd")]
    night(output, "2026-01-01", many(3))
    night(output, "2026-01-02", [(uri, uri.encode()) for uri in HOSTILE], failures, input=f"/photos/{BREAK}", tuning={ALERT: BREAK})
    page = page_of()
    assert page.askew == page.open == []
    assert page.all("script") == []
    assert len(page.all("style")) == 1
    for tag, attributes in page.elements:
        assert tag in ALLOWED.split(), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
        for name in ("src", "href", "action", "xlink:href"):
            assert re.match(r"#\w+$|\.\./index\.html$|data:image/jpeg;base64,", attributes.get(name) or "#x"), attributes
    assert f"s3://b/{ALERT}.jpg" in page.said
    assert "javascript:alert(1)" in page.said
    assert "s3://b/{{ 7 * 7 }}.jpg" in page.said
    assert "\\u202egpj.exe" in page.said
    assert "\u202e" not in page.text


def test_the_page_s_policy_allows_its_own_style_and_pictures_alone(page_of, output, night):
    night(output, "2026-01-02", many(3))
    page = page_of()
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def test_every_table_has_a_caption_and_every_header_a_scope(page_of, output, night, photos):
    night(output, "2026-01-01", photos)
    night(output, "2026-01-02", photos)
    page = page_of()
    assert len(page.all("caption")) == len(page.all("table")) > 6
    assert all(header["scope"] in ("col", "row") for header in page.all("th"))
    labelled = [attributes for attributes in page.all("figure") if attributes.get("aria-label")]
    assert len(labelled) == len(page.all("figure"))


def test_a_run_s_page_is_written_beside_its_record_once(output, night, photos):
    record = night(output, "2026-01-02", photos)
    config = AnnotateConfig.model_validate(record.config)
    write_beside(config, OutputFolder(str(output), {}), record)
    path = output / "runs" / "night-2026-01-02.html"
    assert path.read_text().startswith("<!DOCTYPE html>")
    path.write_text("mine")
    write_beside(config, OutputFolder(str(output), {}), record)
    assert path.read_text() == "mine"


def test_a_page_that_fails_is_a_warning(output, night, photos, caplog):
    record = night(output, "2026-01-02", photos)
    (output / "runs" / "broken.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        write_beside(AnnotateConfig.model_validate(record.config), OutputFolder(str(output), {}), record)
    assert re.search(r"run night-2026-01-02 is committed, but its page could not be written \(UserError: .*broken\.json", caplog.text)
    assert not (output / "runs" / "night-2026-01-02.html").exists()


def test_runs_of_an_earlier_schema_version_have_their_page_and_their_delta_table(page_of, output, night):
    night(output, "2026-11-21", many(3), schema_version=1)
    assert page_of()
    delta.add(OutputFolder(str(output), {}))
    assert len(deltalake.DeltaTable(output / "annotations").to_pyarrow_table()) == 3


def test_runs_of_one_date_count_together_where_labels_are_compared_date_by_date(page_of, output, night, monkeypatch):
    """An earlier run of the same date as the page's stays in the line of drift."""
    night(output, "2026-01-01", many(40))
    night(output, "2026-01-02", many(30))
    night(output, "2026-01-02", many(20), run_id="second", finished_at="2026-01-02T05:00:00+00:00")
    shown = []
    monkeypatch.setattr("pipeline.report.cards.make_card", lambda *given: shown.append(given) or make_card(*given))
    page_of(run_id="second")
    name, now, before, _, by_date, _ = shown[0]
    assert (sum(now.values()), sum(before.values())) == (20, 70)
    assert {date: sum(found[name].values()) for date, found in by_date.items()} == {"2026-01-01": 40, "2026-01-02": 50}


def test_images_that_were_retried_or_annotated_by_another_run_are_told_apart(page_of, output, night):
    record = night(output, "2026-01-01", many(40))
    counts = record.counts.model_dump() | {"listed": 50, "known": 3, "overtaken": 7, "retried": {"ok": 40}}
    night(output, "2026-01-02", many(40), counts=counts)
    page = page_of()
    assert page.askew == page.open == []
    assert "50 listed, 3 of them annotated before, 0 new; 40 failed before and were retried" in page.said
    assert "; 7 were annotated by another run meanwhile" in page.said
