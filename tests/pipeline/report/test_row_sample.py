"""The sample of rows that a page is made from: its size, its statistics, and that it is the same each time."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.report import row_groups, row_sample
from pipeline.report.highlights import HighlightGroup
from pipeline.report.row_sample import Failure, sample_rows
from pipeline.table.output_folder import OutputFolder

FAILURES = [("s3://b/gone1.jpg", "missing", "gone"), ("s3://b/gone2.jpg", "missing", "gone"), ("s3://b/cut.jpg", "corrupt", "cut off")]


@pytest.fixture
def wrote(tmp_path, night):
    def write(count=60, **settings):
        images = [(f"s3://b/{i}.jpg", bytes([i])) for i in range(count)]
        record = night(tmp_path, settings.pop("date", "2026-01-02"), images, FAILURES, **settings)
        return record, pa.concat_tables(pq.read_table(tmp_path / name, partitioning=None) for name in record.files)

    return write


def test_all_of_a_small_run_is_looked_at(wrote, tmp_path):
    record, rows = wrote(parts=3, group_rows=10)
    found = sample_rows(OutputFolder(str(tmp_path), {}), [record])
    assert (found.total, found.rows, found.ok) == (63, 63, 60)
    ok = rows.filter(pc.equal(rows["status"], "ok"))
    scores = pc.struct_field(ok["polarity2"], "score").to_numpy()
    np.testing.assert_array_equal(found.confidence["polarity2"], np.histogram(scores, 20, (0, 1))[0])
    levels = pc.list_flatten(pc.struct_field(ok["valence"], "probs")).to_numpy().reshape(-1, 9)
    np.testing.assert_array_equal(found.confidence["valence"], np.histogram(levels.max(1), 20, (0, 1))[0])
    assert found.failures == {
        "missing": {"gone": Failure(2, ["s3://b/gone1.jpg", "s3://b/gone2.jpg"])},
        "corrupt": {"cut off": Failure(1, ["s3://b/cut.jpg"])},
    }


def test_valence_and_arousal_are_mapped_each_along_its_own_axis(wrote, tmp_path):
    record, rows = wrote()
    found = sample_rows(OutputFolder(str(tmp_path), {}), [record])
    ok = rows.filter(pc.equal(rows["status"], "ok"))
    for axis, name in enumerate(("valence", "arousal")):
        values = pc.struct_field(ok[name], "value").to_numpy()
        np.testing.assert_array_equal(found.density.sum(1 - axis), np.histogram(values, row_sample.GRID, (1, 9))[0])
    assert sample_rows(OutputFolder(str(tmp_path), {}), [wrote(date="2026-01-03", schemes=("polarity2", "valence"))[0]]).density is None


def test_contradictions_are_counted_as_an_evaluation_counts_them(wrote, tmp_path):
    record, rows = wrote()
    found = sample_rows(OutputFolder(str(tmp_path), {}), [record]).contradictions
    assert list(found) == ["polarity3 and polarity2", "polarity3 and valence", "polarity2 and valence", "any"]
    ok = rows.filter(pc.equal(rows["status"], "ok"))
    two, three = (pc.struct_field(ok[name], "label").to_pylist() for name in ("polarity2", "polarity3"))
    assert found["polarity3 and polarity2"] == sum({a, b} == {"negative", "positive"} for a, b in zip(two, three, strict=True)) > 0


def test_of_a_large_run_random_groups_of_rows_are_looked_at_the_same_each_time(wrote, tmp_path, monkeypatch):
    monkeypatch.setattr(row_groups, "MAX_ROWS", 25)
    record, _ = wrote(parts=3, group_rows=10)
    found, again = (sample_rows(OutputFolder(str(tmp_path), {}), [record]) for _ in range(2))
    assert found.total == 63
    assert 16 <= found.rows <= 25
    assert found.highlights == again.highlights
    other, _ = wrote(parts=3, group_rows=10, run_id="another")
    assert sample_rows(OutputFolder(str(tmp_path), {}), [other]).highlights != found.highlights


def test_a_highlight_states_its_row_of_its_run(wrote, tmp_path):
    records, tables = zip(*(wrote(date=date, parts=3, group_rows=7) for date in ("2026-01-02", "2026-01-03")), strict=True)
    found = sample_rows(OutputFolder(str(tmp_path), {}), records)
    highlights = [image for images in found.highlights.values() for image in images]
    assert {image.run for image in highlights} == {0, 1}
    for image in highlights:
        assert tables[image.run]["uri"][image.row].as_py() == image.uri


def test_the_surest_of_all_groups_is_found(wrote, tmp_path):
    record, rows = wrote(group_rows=7)
    found = sample_rows(OutputFolder(str(tmp_path), {}), [record])
    labels, scores = (pc.struct_field(rows["polarity2"], part).to_pylist() for part in ("label", "score"))
    best = max((score, uri) for label, score, uri in zip(labels, scores, rows["uri"].to_pylist(), strict=True) if label == "positive")
    assert found.highlights[HighlightGroup("polarity2", "positive", "most confident")][0].uri == best[1]


def test_a_run_without_a_single_good_image(tmp_path, night):
    found = sample_rows(OutputFolder(str(tmp_path), {}), [night(tmp_path, "2026-01-02", [], FAILURES)])
    assert (found.rows, found.ok, found.confidence, found.highlights) == (3, 0, {}, {})
