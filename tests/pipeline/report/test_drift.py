"""Label drift: distances, p-values, and their correction for many schemes."""

import numpy as np
import pytest
from scipy import stats

from pipeline.report import drift
from pipeline.report.drift import Change, changes, distances, holm, p_value, tally, tally_by_date, total_variation
from pipeline.table.run_record import RunRecord


def night(date, schemes, status=None):
    about = {"run_id": "r", "model": "m", "date": date, "finished_at": f"{date}T00:00:00+00:00", "schemes": {}, "files": [], "config": {}}
    return RunRecord.model_validate(about | {"counts": {"labels": schemes, "status": status or {"ok": 10}}})


def drawn(rng, shares, count):
    return dict(zip(("a", "b", "c"), map(int, rng.multinomial(count, shares)), strict=True))


def test_total_variation_is_the_share_that_would_need_another_label():
    assert total_variation(np.array([6, 4]), np.array([50, 50])) == pytest.approx(0.1)
    assert total_variation(np.array([3, 0]), np.array([0, 9])) == 1
    assert total_variation(np.array([2, 4]), np.array([1, 2])) == 0


def test_chance_agrees_with_fisher_s_exact_test_of_two_labels():
    for ours, theirs in (([8, 2], [60, 40]), ([30, 70], [50, 50]), ([3, 1], [1, 3]), ([500, 500], [5100, 4900])):
        exact = stats.fisher_exact([ours, theirs]).pvalue
        assert p_value(np.array(ours), np.array(theirs)) == pytest.approx(exact, abs=0.02)


def test_of_nights_that_are_alike_the_p_values_are_even():
    rng = np.random.default_rng(1)
    shares = [0.5, 0.3, 0.2]
    values = [p_value(rng.multinomial(300, shares), rng.multinomial(2000, shares)) for _ in range(60)]
    assert stats.kstest(values, "uniform").pvalue > 0.01
    assert 0.3 < np.mean(values) < 0.7


def test_a_test_that_stops_early_decides_as_the_whole_one_does(monkeypatch):
    rng = np.random.default_rng(2)
    pairs = [
        (rng.multinomial(200, [0.5, 0.3, 0.2]), rng.multinomial(2000, [0.5 - lean, 0.3 + lean, 0.2])) for lean in np.arange(0, 0.2, 0.01)
    ]
    early = [p_value(*pair) for pair in pairs]
    monkeypatch.setattr(drift, "BATCH", drift.PERMUTATIONS)
    whole = [p_value(*pair) for pair in pairs]
    assert [p < drift.ALPHA for p in early] == [p < drift.ALPHA for p in whole]
    assert {p for p in whole if p < drift.ALPHA} <= set(early), "those are computed to the end"
    assert len({p < drift.ALPHA for p in whole}) == 2


def test_more_images_than_numpy_divides_at_random():
    assert p_value(np.array([6 * 10**9, 4 * 10**9]), np.array([5 * 10**10, 5 * 10**10])) == 1 / 10_000
    assert p_value(np.array([10**10, 10**10]), np.array([10**11, 10**11])) == 1


def test_holm_s_correction():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([]) == []


def test_drift_is_what_is_beyond_chance_and_not_small():
    rng = np.random.default_rng(0)
    before = {"large": drawn(rng, [0.5, 0.3, 0.2], 10**7), "few": drawn(rng, [0.5, 0.3, 0.2], 10**5), "moved": {"a": 500_000, "b": 500_000}}
    now = {"large": drawn(rng, [0.51, 0.29, 0.2], 10**6), "few": {"a": 6, "b": 2, "c": 0}, "moved": {"a": 56_000, "b": 44_000}}
    found = changes(now, before)
    assert found["large"].p < drift.ALPHA
    assert found["large"].distance < drift.MIN_DISTANCE
    assert not found["large"].drifted, "sure, and small"
    assert found["few"].distance > drift.MIN_DISTANCE
    assert not found["few"].drifted, "large, and by chance"
    assert found["moved"].drifted
    assert found["moved"].distance == pytest.approx(0.06)


def test_p_values_are_corrected_for_the_number_of_schemes():
    now, before = {"a": 12, "b": 28}, {"a": 400, "b": 400}
    alone = changes({"s": now}, {"s": before})["s"].p
    among = changes({f"s{i}": now for i in range(5)}, {f"s{i}": before for i in range(5)})
    assert among["s0"].p == pytest.approx(5 * alone)


def test_without_an_earlier_night_nothing_is_compared():
    now = {"s": {"a": 1, "b": 2}}
    assert changes(now, {}) == {}
    assert changes(now, {"s": {"a": 0, "b": 0}}) == {}
    assert changes({"s": {"a": 0, "b": 0}}, now) == {}


def test_a_status_that_is_new_counts_as_none_before():
    assert changes({"status": {"ok": 90, "missing": 10}}, {"status": {"ok": 1000}}) == {"status": Change(pytest.approx(0.1), 0.0001)}


def test_runs_of_one_date_are_one_night():
    records = [
        night("2026-01-02", {"s": {"a": 1, "b": 2}}),
        night("2026-01-01", {"s": {"a": 5, "b": 5}}),
        night("2026-01-02", {"s": {"a": 3}}),
    ]
    assert list(tally_by_date(records)) == ["2026-01-01", "2026-01-02"]
    assert tally_by_date(records)["2026-01-02"] == {"s": {"a": 4, "b": 2}, "status": {"ok": 20}}
    assert tally(records)["s"] == {"a": 9, "b": 7}


def test_each_night_is_compared_with_those_before_it(monkeypatch):
    monkeypatch.setattr(drift, "MAX_DATES", 2)
    halves = {"s": {"a": 50, "b": 50}}
    nights = {"1": {"s": {"a": 100, "b": 0}}, "2": halves, "3": {}, "4": halves, "5": halves}
    assert distances(nights, "s") == {"2": 0.5, "4": 0.25, "5": 0.0}
    assert distances({"1": halves}, "s") == {}


def test_images_that_were_retried_are_not_counted_among_the_new_by_status():
    record = night("2026-01-02", {}, {"ok": 12, "missing": 40})
    record = record.model_copy(update={"counts": record.counts.model_copy(update={"retried": {"ok": 2, "missing": 40}})})
    assert tally([record])[drift.STATUS] == {"ok": 10}
