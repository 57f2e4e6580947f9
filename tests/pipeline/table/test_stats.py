"""Counts of rows, statuses and labels."""

import pyarrow as pa
import pytest

from pipeline.config import AnnotateConfig
from pipeline.table.stats import FailuresError, check_failures, count_labels, sum_counts, sum_values
from ugrie.schemes.scheme import load_scheme


def test_labels_are_counted_also_those_that_were_never_given():
    scheme = load_scheme("polarity3")
    readings = [{"label": "positive"}, None, {"label": "positive"}, {"label": "negative"}]
    column = pa.chunked_array(
        [pa.array(readings[:2], pa.struct({"label": pa.string()})), pa.array(readings[2:], pa.struct({"label": pa.string()}))]
    )
    assert count_labels(scheme, column) == {"negative": 1, "neutral": 0, "positive": 2}


def test_an_ordinal_value_counts_for_the_nearest_label():
    scheme = load_scheme("valence")
    readings = [{"value": value} for value in (1.0, 1.4, 5.2, 9.0)] + [None]
    column = pa.chunked_array([pa.array(readings, pa.struct({"value": pa.float32()}))])
    assert list(count_labels(scheme, column).values()) == [2, 0, 0, 0, 1, 0, 0, 0, 1]


def test_values_are_added_up_without_those_of_images_that_failed():
    readings = pa.array([{"value": 1.25}, None, {"value": 7.0}], pa.struct({"value": pa.float32()}))
    assert sum_values(pa.chunked_array([readings, readings[:1]])) == 9.5
    assert sum_values(pa.chunked_array([readings[1:2]])) == sum_values(pa.chunked_array([], readings.type)) == 0


def test_the_counts_of_all_files_are_added():
    schemes = [load_scheme("polarity2"), load_scheme("valence")]
    levels = {"valence": dict.fromkeys(schemes[1].label_names, 0)}
    one = {
        "rows": 3,
        "status": {"ok": 2, "corrupt": 1},
        "retried": {"ok": 1},
        "labels": {"polarity2": {"negative": 2, "positive": 0}, **levels},
        "sums": {"valence": 9.5},
    }
    other = {
        "rows": 2,
        "status": {"missing": 1, "ok": 1},
        "retried": {"missing": 1, "ok": 1},
        "labels": {"polarity2": {"negative": 0, "positive": 1}, **levels},
        "sums": {"valence": 3.0},
    }
    one["reposts"], other["reposts"] = {"run": 1, "earlier": 0}, {"run": 1, "earlier": 2}
    total = sum_counts([one, other], schemes)
    assert total == {
        "rows": 5,
        "status": {"ok": 3, "corrupt": 1, "missing": 1},
        "retried": {"ok": 2, "missing": 1},
        "reposts": {"run": 2, "earlier": 2},
        "labels": {"polarity2": {"negative": 2, "positive": 1}, **levels},
        "sums": {"valence": 12.5},
    }
    assert next(iter(total["status"])) == "ok"


def counts(retried=None, **status):
    return {"status": status, "retried": retried or {}}


def test_a_run_may_commit_with_as_many_failures_as_it_is_allowed():
    found = counts(ok=7, corrupt=2, missing=1)
    check_failures(found, 0.3)
    with pytest.raises(FailuresError, match=r"3 of 10 new images failed \(2 corrupt, 1 missing\), more than max_failed_ratio = 0\.29"):
        check_failures(found, 0.29)
    check_failures(counts(ok=71, corrupt=29), 0.29)


@pytest.mark.parametrize("most", [0.5, 1.0])
@pytest.mark.parametrize("status", [{"missing": 60}, {"forbidden": 1}, {"corrupt": 10}, {"not_an_image": 5, "timeout": 1}])
def test_a_night_without_a_single_annotated_image_is_not_committed_whatever_the_settings(status, most):
    with pytest.raises(FailuresError, match=rf"none of {sum(status.values())} new images could be annotated \(.*\): check the input"):
        check_failures(counts(**status), most)


@pytest.mark.parametrize(
    "status", [{}, {"not_an_image": 1}, {"corrupt": 9}, {"ok": 1, "not_an_image": 8}, {"ok": 1, "missing": 1}, {"ok": 5, "corrupt": 5}]
)
def test_a_sane_night_is_committed_by_the_default_also_where_its_only_new_file_is_no_image(status):
    check_failures(counts(**status), AnnotateConfig(input="in", output="out").max_failed_ratio)


def test_images_that_failed_before_do_not_stop_a_quiet_night():
    check_failures(counts({"missing": 200}, missing=200), 0.0)
    check_failures(counts({"missing": 200, "ok": 3}, ok=5, missing=200), 0.0)
    with pytest.raises(FailuresError, match=r"none of 2 new images could be annotated \(2 missing\)"):
        check_failures(counts({"missing": 200, "ok": 3}, ok=3, missing=202), 1.0)
