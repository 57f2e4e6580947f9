"""The runs that a page describes, and those it compares them with."""

import datetime as dt

import pytest

from pipeline.errors import UserError
from pipeline.report.run_selection import earlier_runs, page_path, select_runs
from pipeline.table.run_record import RunRecord


def run(date, hour=1, model="m", rows=5, **changes):
    finished_at = f"{date}T{hour:02}:00:00+00:00"
    about = {"run_id": f"{date}-{hour}", "date": date, "finished_at": finished_at, "model": model, "counts": {"rows": rows}}
    return RunRecord.model_validate(about | {"schemes": {}, "files": [], "config": {}} | changes)


RUNS = [run("2026-01-03"), run("2026-01-01"), run("2026-01-02", 2), run("2026-01-02", 1, "other"), run("2026-01-02", 5)]


def ids(records):
    return [record.run_id for record in records]


def test_the_newest_run_unless_one_is_named():
    assert ids(select_runs(RUNS, None, None, None)) == ["2026-01-03-1"]
    assert ids(select_runs(RUNS, "2026-01-02-1", None, None)) == ["2026-01-02-1"]


def test_of_some_dates_the_runs_of_the_newest_one_s_model():
    assert ids(select_runs(RUNS, None, dt.date(2026, 1, 2), None)) == ["2026-01-02-2", "2026-01-02-5", "2026-01-03-1"]
    assert ids(select_runs(RUNS, None, None, dt.date(2026, 1, 1))) == ["2026-01-01-1"]


@pytest.mark.parametrize(
    ("known", "asked", "said"),
    [
        ([], (None, None, None), "holds no committed run: check --output"),
        (
            RUNS,
            ("2026-01-02-3", None, None),
            r"no committed run 2026-01-02-3 \(did you mean '2026-01-02-\d'\?\); the newest is 2026-01-03-1",
        ),
        (RUNS, ("2026-01-02-2", dt.date(2026, 1, 1), None), "leave out --since and --until"),
        (RUNS, (None, dt.date(2026, 1, 3), dt.date(2026, 1, 2)), "--since 2026-01-03 is after --until 2026-01-02"),
        (RUNS, (None, dt.date(2026, 2, 1), None), "no run between --since and --until: its runs are of 2026-01-01 to 2026-01-03"),
    ],
)
def test_where_there_is_none_it_says_so(known, asked, said):
    with pytest.raises(UserError, match=said):
        select_runs(known, *asked)


def test_earlier_runs_are_of_the_same_model_and_have_rows():
    runs = [*RUNS, run("2026-01-01", 9, rows=0)]
    assert ids(earlier_runs(runs, [runs[0]], 28)) == ["2026-01-01-1", "2026-01-02-2", "2026-01-02-5"]
    assert ids(earlier_runs(runs, [runs[0]], 1)) == ["2026-01-02-2", "2026-01-02-5"]
    assert ids(earlier_runs(runs, [runs[4]], 28)) == ["2026-01-01-1", "2026-01-02-2"]
    assert earlier_runs(runs, [runs[1]], 28) == []


def test_a_page_is_named_after_its_run_or_its_nights():
    assert page_path(RUNS[:1]) == "runs/2026-01-03-1.html"
    assert page_path(select_runs(RUNS, None, dt.date(2026, 1, 1), None)) == "runs/nights_2026-01-01_2026-01-03.html"


def test_nights_before_a_scheme_file_was_edited_are_not_compared():
    nights = [
        run("2026-01-01", zero_shot={"mine": "a"}),
        run("2026-01-02"),
        run("2026-01-03", zero_shot={"mine": "b", "yours": "c"}),
        run("2026-01-04", zero_shot={"mine": "b"}),
    ]
    assert ids(select_runs(nights, None, dt.date(2026, 1, 1), None)) == ["2026-01-02-1", "2026-01-03-1", "2026-01-04-1"]
    assert ids(earlier_runs(nights, nights[3:], 9)) == ["2026-01-02-1", "2026-01-03-1"]
