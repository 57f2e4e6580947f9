"""The page of all nights: what it lists and charts, that untrusted text on it stays text, and that no commit is lost from it."""

import datetime as dt
import json
import logging
import re
import threading

import pytest

from pipeline.config import AnnotateConfig
from pipeline.maintenance.vacuum import leftovers
from pipeline.report import drift, index, moods
from pipeline.report.page import write as write_page
from pipeline.report.page import write_beside
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs

ALERT = "<script>alert(1)</script>"
BREAK = '"><img src=x onerror=alert(1)>'
ALLOWED = """
    html head meta title style body a div header p h1 h2 h3 strong nav ul li main section b table caption thead tr th tbody td span
    svg g rect path line text details summary code article figure
"""


def many(count, name="i"):
    return [(f"s3://b/{name}{i}.jpg", f"{name}{i}".encode()) for i in range(count)]


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def folder(output):
    return OutputFolder(str(output), {})


@pytest.fixture
def read(output, folder, read_page):
    """Write the page, and parse it."""

    def write_and_read():
        index.write(folder)
        return read_page((output / "index.html").read_text())

    return write_and_read


@pytest.fixture
def commit(output, folder, night):
    """Commit a run as a driver does: its record, then its page and that of all nights."""

    def commit(date, **changes):
        record = night(output, date, many(2), schemes=("polarity2",), config={"report_images": False}, **changes)
        write_beside(AnnotateConfig.model_validate(record.config), folder, record)
        return record

    return commit


def linked(page):
    return [attributes["href"] for attributes in page.all("a") if not attributes["href"].startswith("#")]


def without_page(output, date):
    return output / "runs" / f"night-{date}.html"


# --- what it shows


def test_it_lists_the_runs_newest_first_with_their_counts_and_pages(read, output, night):
    for day, failed in ((2, 1), (3, 0), (1, 0)):
        night(output, f"2026-01-0{day}", many(10 * day), [("s3://b/gone", "missing", "gone")] * failed)
        without_page(output, f"2026-01-0{day}").write_text("a page")
    page = read()
    assert page.askew == page.open == []
    assert "Night of 2026-01-03 : 30 images annotated by made-up@0123; none failed. No drift. Finished 2026-01-03 01:02 UTC." in page.said
    rows = "2026-01-03 night-2026-01-03 30 0 none 2026-01-02 night-2026-01-02 20 1 4.8 % none 2026-01-01 night-2026-01-01 10 0 –"
    assert rows in page.said
    assert linked(page) == ["runs/night-2026-01-03.html", *(f"runs/night-2026-01-0{day}.html" for day in (3, 2, 1))]
    assert "3 nights 60 images annotated in all 30 in the newest run 0.0 % failed in it 0 drifted in it" in page.said
    assert "Models" not in page.said


def test_a_scheme_s_shares_and_means_are_those_of_the_newest_night_and_of_those_before(read, output, night):
    records = [night(output, f"2026-01-0{day}", many(40, str(day))) for day in (1, 2, 3)]
    page = read()
    labels = [record.counts.labels["polarity2"] for record in records]
    now, before = labels[2]["positive"] / 40, (labels[0]["positive"] + labels[1]["positive"]) / 80
    change = f"{100 * (now - before):+.1f}".replace("-", "−")
    assert f"2026-01-03, and the 2 nights before label % before change positive {100 * now:.1f} {100 * before:.1f} {change}" in page.said
    sums = [record.counts.sums["valence"] for record in records]
    assert f"value mean before change 1 to 9 {sums[2] / 40:.2f} {(sums[0] + sums[1]) / 80:.2f}" in page.said
    assert len(page.all("figure")) == len(page.all("article")) == 4
    assert "don’t state" not in page.said


def test_drift_is_marked_in_the_table_and_in_the_charts_as_on_the_night_s_own_page(read, output, night, read_page, folder):
    for day in range(1, 6):
        night(output, f"2026-01-0{day}", many(500, str(day)), lean=3 if day == 5 else 1, schemes=("polarity3", "polarity2"))
    page = read()
    assert "2026-01-03 night-2026-01-03 500 0 none 2026-01-02 night-2026-01-02 500 0 none 2026-01-01 night-2026-01-01 500 0 –" in page.said
    own = read_page((output / write_page(folder, run_id="night-2026-01-05").removeprefix(f"{output}/")).read_text())
    distances = re.findall(r"Drift\. ([\d.]+) % of the images", own.said)
    assert len(distances) == 2
    assert all(f" {distance} %" in page.said.split("Moods")[1] for distance in distances)
    charts = page.text.split("<figure")[1:]
    assert [chart.count('fill="var(--warn)"') for chart in charts] == [1, 1], "one triangle in each chart"


def test_labels_beyond_a_few_of_each_polarity_are_one_band(read, output, night):
    night(output, "2026-01-01", many(200, "a"), schemes=("emotic26",))
    record = night(output, "2026-01-02", many(200, "b"), schemes=("emotic26",))
    page = read()
    assert len(record.counts.labels["emotic26"]) == 26
    found = re.search(r"label % before change (.*)", page.said)[1]
    shares = [float(share) for share in re.findall(r" (\d+\.\d) \d+\.\d [+−±]", found)]
    assert len(shares) == 9
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert "6 other positive" in found
    assert "11 other negative" in found


def test_of_several_models_the_newest_one_s_nights_are_charted_and_all_are_listed(read, output, night):
    night(output, "2026-01-01", many(5, "a"), model="other@9")
    night(output, "2026-01-02", many(7, "b"))
    night(output, "2026-01-03", many(9, "c"))
    page = read()
    assert page.askew == page.open == []
    assert "in 2 runs of made-up@0123 ." in page.said.replace("made-up@0123.", "made-up@0123 .")
    assert "2026-01-03, and the 1 night before" in page.said
    assert "made-up@0123 2 16 2026-01-02 2026-01-03 other@9 1 5 2026-01-01 2026-01-01" in page.said


def test_nights_without_anything_new_are_listed_and_not_charted(read, output, night):
    empty = {"listed": 5, "known": 5, "rows": 0, "status": {}, "labels": {"polarity2": {"negative": 0, "positive": 0}}}
    night(output, "2026-01-01", many(5))
    night(output, "2026-01-02", many(1), counts=empty, files=[])
    page = read()
    assert "Night of 2026-01-02: no new images; 5 images listed, all annotated before by made-up@0123." in page.said
    assert "2026-01-02 night-2026-01-02 0 0 –" in page.said
    assert "2026-01-01 label % positive" in page.said
    for record in (output / "runs").glob("night-2026-01-01.json"):
        record.unlink()
    assert read().all("article") == []


def test_runs_of_one_date_are_one_night_on_the_charts_and_two_in_the_table(read, output, night):
    one = night(output, "2026-01-01", many(30, "a"), schemes=("valence",))
    other = night(output, "2026-01-01", many(10, "b"), schemes=("valence",), run_id="second", finished_at="2026-01-01T05:00:00+00:00")
    page = read()
    assert "1 night , 2 runs" in page.said.replace("night,", "night ,")
    assert f"1 to 9 {(one.counts.sums['valence'] + other.counts.sums['valence']) / 40:.2f}" in page.said
    assert page.said.index("second 10 0") < page.said.index("night-2026-01-01 30 0")


def test_records_of_earlier_versions_are_read_and_their_means_are_those_of_nearest_levels(read, output, night):
    for day, version in ((1, 1), (2, 2)):
        record = night(output, f"2026-01-0{day}", many(20, str(day)), schemes=("valence", "polarity2"), schema_version=version)
        if version == 1:
            levels = record.counts.labels["valence"]
            path = output / "runs" / f"{record.run_id}.json"
            old = json.loads(path.read_text())
            old["counts"] = {name: value for name, value in old["counts"].items() if name in ("rows", "status", "labels")}
            path.write_text(json.dumps(old))
    page = read()
    rounded = sum(level * count for level, count in enumerate(levels.values(), 1)) / 20
    assert f"1 to 9 {record.counts.sums['valence'] / 20:.2f} {rounded:.2f}" in page.said
    assert "Records up to 2026-01-01 don’t state the mean" in page.said


def test_without_the_table_s_files_labels_are_grey_and_old_values_are_shown_by_level(read, output, night):
    for day in (1, 2):
        record = night(output, f"2026-01-0{day}", many(20, str(day)), schemes=("valence", "polarity2"))
        path = output / "runs" / f"{record.run_id}.json"
        old = json.loads(path.read_text())
        del old["counts"]["sums"]
        path.write_text(json.dumps(old))
        (output / record.files[0]).unlink()
    page = read()
    assert page.askew == page.open == []
    assert len(page.all("figure")) == 2
    assert "7 other" in page.said, "of nine levels"
    assert 'class="key bar positive"' not in page.text


def test_a_scheme_that_only_earlier_nights_have_keeps_its_own_dates(read, output, night):
    night(output, "2026-01-01", many(20, "a"), schemes=("polarity2", "polarity3"))
    night(output, "2026-01-02", many(20, "b"), schemes=("polarity2",))
    said = read().said
    assert re.search(r"polarity2 [^,]*2026-01-02, and the 1 night before", said)
    assert "polarity3 2026-01-01 label % positive" in said


# --- how much it shows


def test_the_rows_the_charts_and_the_models_have_a_limit_and_what_is_left_out_is_counted(read, output, night, monkeypatch):
    monkeypatch.setattr(index, "MAX_RUNS", 16)
    monkeypatch.setattr(index, "MAX_MODELS", 2)
    monkeypatch.setattr(moods, "MAX_DATES", 5)
    for day in range(1, 21):
        changes = {"model": f"old@{day}"} if day < 4 else {}
        night(output, f"2026-01-{day:02}", many(3, str(day)), schemes=("polarity2",), **changes)
    page = read()
    assert page.askew == page.open == []
    assert page.said.count(" night-2026-01-") == 16
    assert "night-2026-01-05 3 0" in page.said
    assert "9 earlier runs" in page.said, "7 are unfolded"
    assert "4 older runs are left out here: the records and pages of all runs are in runs/" in page.said
    assert "2026-01-20, and the 4 nights before" in page.said
    assert "(the newest 5 nights)" in page.said
    assert "2 older models are left out here." in page.said


@pytest.mark.slow
def test_with_thousands_of_nights_it_is_small(output, folder, night):
    record = night(output, "2020-01-01", many(50)).model_dump(mode="json")
    for day in range(2000):
        year, month, date = 2021 + day // 336, 1 + day % 336 // 28, 1 + day % 28
        stamp = f"{year}-{month:02}-{date:02}"
        changes = {"run_id": f"night-{stamp}", "date": stamp, "finished_at": f"{stamp}T01:00:00+00:00"}
        (output / "runs" / f"night-{stamp}.json").write_text(json.dumps(record | changes))
    index.write(folder)
    assert (output / "index.html").stat().st_size < 150_000


def test_at_most_three_files_are_opened_for_the_schemes(output, folder, night, monkeypatch):
    for day in range(1, 8):
        record = night(output, f"2026-01-0{day}", many(3, str(day)))
        (output / record.files[0]).unlink()
    opened = []
    monkeypatch.setattr(moods, "run_files", lambda output, runs: opened.append(runs) or (_ for _ in ()).throw(FileNotFoundError("gone")))
    index.write(folder)
    assert len(opened) == 3


def test_nights_without_a_distance_are_not_tested_for_drift(output, folder, night, monkeypatch):
    for day in (1, 2):
        night(output, f"2026-01-0{day}", many(3), counts={"rows": 1000, "status": {"ok": 1000}, "labels": {"s": {"a": 500, "b": 500}}})
    monkeypatch.setattr(drift, "p_value", lambda *_: pytest.fail("tested"))
    index.write(folder)


# --- whose text it is, and whose file


def test_what_others_wrote_stays_text_and_links_stay_within_the_output(read, output, night):
    hostile = {"labels": {ALERT: {BREAK: 400, "\u202eevil": 600}}, "rows": 1000, "status": {"ok": 1000}}
    alike = {"labels": {ALERT: {BREAK: 600, "\u202eevil": 400}}, "rows": 1000, "status": {"ok": 1000}}
    night(output, "2026-01-01", many(3), model=f"{BREAK}@1", counts=alike, schemes=("polarity2",))
    night(output, "2026-01-02", many(3), model=f"{BREAK}@1", counts=hostile, schemes=("polarity2",))
    night(output, "2026-01-01", many(3), model=ALERT, run_id="other")
    (output / "runs" / f"{BREAK}.html").write_text("a page")
    for number, run_id in enumerate((BREAK, "../../evil", "javascript:alert(1)", "https://evil.example/x?y#z")):
        record = json.loads((output / "runs" / "night-2026-01-01.json").read_text()) | {"run_id": run_id}
        (output / "runs" / f"evil{number}.json").write_text(json.dumps(record))
    page = read()
    assert page.askew == page.open == []
    assert page.all("script") == page.all("img") == []
    for tag, attributes in page.elements:
        assert tag in ALLOWED.split(), tag
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")], attributes
    assert linked(page) == ["runs/%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E.html"]
    for text in (ALERT, BREAK, "../../evil", "javascript:alert(1)", "\\u202eevil"):
        assert text in page.said
    assert "\u202e" not in page.text
    assert "A run without a link has no page" in page.said


def test_a_page_that_is_not_ugrie_s_is_left_alone(output, folder, commit, caplog):
    (output / "index.html").write_text("<!DOCTYPE html><title>My shop</title>")
    with caplog.at_level(logging.WARNING):
        commit("2026-01-01")
    assert "My shop" in (output / "index.html").read_text()
    assert re.search(r"index\.html could not be written \(UserError: .*/index\.html is not UGRIE's: move it elsewhere\)", caplog.text)


def test_the_cleaning_job_leaves_it_alone(output, folder, commit):
    commit("2026-01-01")
    assert leftovers(folder, dt.timedelta()) == []


# --- when it is written


def test_each_commit_writes_it_and_a_page_links_to_it(output, commit, read_page):
    for day in (1, 2):
        commit(f"2026-01-0{day}")
        page = read_page((output / "index.html").read_text())
        assert linked(page)[1:] == [f"runs/night-2026-01-0{each}.html" for each in range(day, 0, -1)]
    own = read_page((output / "runs" / "night-2026-01-02.html").read_text())
    assert linked(own) == ["../index.html"]


def test_a_failure_to_write_it_is_a_warning(output, commit, caplog):
    (output / "index.html").mkdir()
    with caplog.at_level(logging.WARNING):
        commit("2026-01-01")
    assert re.search(r"index\.html could not be written \(IsADirectoryError: .*\): the next run writes it, or `ugrie report`", caplog.text)
    assert (output / "runs" / "night-2026-01-01.html").exists()


def test_a_run_that_is_committed_already_mends_it(output, folder, commit):
    record = commit("2026-01-01")
    path, config = output / "index.html", AnnotateConfig.model_validate(record.config)
    whole, written = path.read_text(), path.stat().st_mtime_ns
    write_beside(config, folder, record)
    assert path.stat().st_mtime_ns == written, "nothing was missing"
    for damaged in (None, whole.replace("night-2026-01-01", "other")):
        path.unlink()
        if damaged:
            path.write_text(damaged)
        write_beside(config, folder, record)
        assert path.read_text() == whole


def test_the_job_that_writes_a_run_s_page_writes_it_too_unless_the_page_goes_elsewhere(output, folder, night, tmp_path, read_page):
    night(output, "2026-01-01", many(2), config={"report_images": False})
    write_page(folder, to=str(tmp_path / "page.html"))
    assert not (output / "index.html").exists()
    assert linked(read_page((tmp_path / "page.html").read_text())) == []
    write_page(folder)
    assert "runs/night-2026-01-01.html" in linked(read_page((output / "index.html").read_text()))


# --- several commits at once


def runs_on(page):
    return {href.removeprefix("runs/night-").removesuffix(".html") for href in linked(page)}


@pytest.mark.parametrize("moment", ["before_it_is_written", "after_it_is_written"])
def test_of_two_commits_at_once_none_is_lost(output, commit, read_page, monkeypatch, moment):
    """Another run is committed, with its page and that of all nights, after this one read the records."""
    write, others = OutputFolder.write, [lambda: commit("2026-01-02")]

    def interleaved(self, path, data, content_type=None):
        other = others.pop() if path == "index.html" and others else None
        if other and moment == "before_it_is_written":
            other()  # now this one writes an older page over the other's
        write(self, path, data, content_type)
        if other and moment == "after_it_is_written":
            other()

    monkeypatch.setattr(OutputFolder, "write", interleaved)
    commit("2026-01-01")
    assert others == []
    assert runs_on(read_page((output / "index.html").read_text())) == {"2026-01-01", "2026-01-02"}


def test_a_driver_that_dies_before_it_has_written_it_is_made_up_for_by_the_next_run(output, commit, night, read_page):
    commit("2026-01-01")
    night(output, "2026-01-02", many(2))  # committed, and no more
    commit("2026-01-03")
    page = read_page((output / "index.html").read_text())
    assert page.said.count(" night-2026-01-0") == 3
    assert runs_on(page) == {"2026-01-01", "2026-01-03"}, "the run that died has no page to link to"


def test_of_many_commits_at_once_none_is_lost(output, folder, night, read_page):
    records = [night(output, f"2026-01-{day:02}", many(2), schemes=("polarity2",)) for day in range(1, 9)]
    texts = {}
    for record in records:
        path = output / "runs" / f"{record.run_id}.json"
        texts[path] = path.read_text()
        path.unlink()
    barrier = threading.Barrier(len(texts))

    def commit(path, text):
        barrier.wait()
        folder.create(f"runs/{path.name}", text.encode())
        index.write(folder)

    threads = [threading.Thread(target=commit, args=each) for each in texts.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_page((output / "index.html").read_text()).said.count(" night-2026-01-0") == len(past_runs(folder)) == 8


def test_a_copy_of_a_record_under_another_name_does_not_keep_it_writing(output, folder, night):
    night(output, "2026-01-01", many(2))
    (output / "runs" / "copy.json").write_text((output / "runs" / "night-2026-01-01.json").read_text())
    index.write(folder)
    assert "index.html" in folder.names("")
