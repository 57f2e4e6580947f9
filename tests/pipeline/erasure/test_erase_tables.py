"""Erasing images from Delta and Iceberg tables: earlier versions, compacted files, counts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.erasure import erase
from pipeline.erasure.erase import EraseJob
from pipeline.errors import UserError
from pipeline.maintenance.vacuum import leftovers, remove
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs
from pipeline.table_formats import delta, iceberg
from pipeline.table_formats.iceberg_catalog import TableName
from pipeline.table_formats.iceberg_table import IcebergTable
from tests.plugins.erasing import SAME, check_counts, check_metadata, delta_rows, everything, iceberg_rows, nights, rows_of


def test_a_compacted_table_loses_the_rows_of_all_files_old_versions_among_them(night, tmp_path, job):
    """Those of the records, those of the compaction, and those that only an earlier version of the table has."""
    folder = tmp_path / "out"
    nights(night, folder, 2, schemes=("valence",))
    output = OutputFolder(str(folder), {})
    delta.add(output)
    delta.compact(output, None)
    delta.compact(output, None)
    from deltalake import DeltaTable

    DeltaTable(folder / "annotations").delete("uri = 's3://b/2/7.jpg'")
    before = [row for row in delta_rows(folder) if row["content_hash"] != SAME]
    done = job(folder, SAME)
    erased = list(done.run())
    assert sorted((each.run_id or "", each.rows) for each in erased) == [("", 4), ("", 4), ("night-2026-01-01", 4), ("night-2026-01-02", 4)]
    assert sorted(delta_rows(folder), key=str) == sorted(before, key=str)
    assert SAME.encode() not in everything(folder)
    check_counts(folder)
    assert list(job(folder, SAME).run()) == []
    delta.add(output)
    assert len(delta_rows(folder)) == len(before)


def test_a_compacted_iceberg_table_loses_the_rows_of_all_files_earlier_snapshots_among_them(night, tmp_path, job):
    folder = tmp_path / "out"
    nights(night, folder, 2, schemes=("valence",))
    output = OutputFolder(str(folder), {})
    iceberg.add(output)
    iceberg.compact(output, None)
    IcebergTable(output, TableName()).table.delete("uri = 's3://b/2/7.jpg'")  # by writing the compacted file again
    before = [row for row in iceberg_rows(folder) if row["content_hash"] != SAME]
    listed = list(job(folder, SAME).preview())
    done = job(folder, SAME)
    erased = list(done.run())
    assert erased == listed
    assert sorted((each.run_id or "", each.rows) for each in erased) == [("", 4), ("", 4), ("night-2026-01-01", 4), ("night-2026-01-02", 4)]
    assert sorted(iceberg_rows(folder), key=str) == sorted(before, key=str)
    assert SAME.encode() not in everything(folder)
    assert set(folder.rglob("*.avro")) == check_metadata(folder)
    assert not any((iceberg.earlier_files(output), done.remaining))
    check_counts(folder)
    assert list(job(folder, SAME).run()) == []
    iceberg.add(output)
    assert len(iceberg_rows(folder)) == len(before)


def test_counts_stay_true_where_clean_has_removed_a_runs_own_files_from_an_iceberg_table(night, tmp_path, job):
    """Its first erasure lets the snapshots expire that have them."""
    folder = tmp_path / "out"
    nights(night, folder, 1, schemes=("valence", "polarity2"))
    output = OutputFolder(str(folder), {})
    iceberg.add(output)
    iceberg.compact(output, None)
    list(job(folder, "s3://b/1/5.jpg").run())
    assert len(rows_of(folder)) == 42  # the record's files stay until then
    assert len(list(remove(output, leftovers(output, erase.FOREVER)))) == 2
    list(job(folder, SAME).run())
    (record,) = past_runs(output)
    assert (record.counts.rows, record.counts.erased, record.counts.status["ok"]) == (38, 5, 35)
    assert sum(record.counts.labels["polarity2"].values()) == len(iceberg_rows(folder)) - 3 == 35
    assert SAME.encode() not in everything(folder)


def test_what_another_has_rewritten_in_an_iceberg_table_meanwhile_is_erased_as_well(made, job, monkeypatch):
    made.commit("a", range(20))
    iceberg.add(made.folder)
    write_record = EraseJob._write_record

    def late(*args):
        write_record(*args)
        if len(made.iceberg.scan().to_arrow()) == 20:
            made.iceberg.delete("image_id = 7")

    monkeypatch.setattr(EraseJob, "_write_record", late)
    assert [(each.run_id, each.rows) for each in job(made.folder, "file:///4.jpg").run()] == [("a", 1), (None, 1)]
    assert made.iceberg.scan().to_arrow()["image_id"].to_pylist() == [i for i in range(20) if i not in (4, 7)]
    assert iceberg.earlier_files(made.folder) == set()


def test_counts_stay_true_where_a_vacuum_has_removed_a_runs_own_files(night, tmp_path, job):
    folder = tmp_path / "out"
    nights(night, folder, 1, schemes=("valence", "polarity2"))
    output = OutputFolder(str(folder), {})
    delta.add(output)
    delta.compact(output, None)
    for file in past_runs(output)[0].files:
        output.remove(file)
    list(job(folder, SAME).run())
    (record,) = past_runs(output)
    assert (record.counts.rows, record.counts.erased, record.counts.status["ok"]) == (39, 4, 36)
    assert sum(record.counts.labels["polarity2"].values()) == len(delta_rows(folder)) - 3 == 36


def test_a_table_with_features_that_an_erasure_would_break_is_refused_before_anything_changes(night, tmp_path, job):
    folder = tmp_path / "out"
    nights(night, folder, 1, schemes=("valence",))
    output = OutputFolder(str(folder), {})
    delta.add(output)
    from deltalake import DeltaTable

    DeltaTable(folder / "annotations").alter.set_table_properties({"delta.appendOnly": "true"})
    before = everything(folder)
    for attempt in ("run", "preview"):
        with pytest.raises(UserError, match=r"has features that an erasure doesn't keep to \(delta\.appendOnly\)"):
            list(getattr(job(folder, SAME), attempt)())
    assert everything(folder) == before


def test_an_iceberg_table_whose_snapshots_can_not_expire_is_refused_before_anything_changes(made, job, tmp_path):
    made.commit("a", range(20))
    iceberg.add(made.folder)
    made.iceberg.manage_snapshots().create_tag(made.iceberg.current_snapshot().snapshot_id, "audit").commit()
    before = everything(tmp_path / "out")
    for attempt in ("run", "preview"):
        with pytest.raises(UserError, match=r"has branches or tags, whose snapshots can't expire \(audit\): remove them first"):
            list(getattr(job(made.folder, "file:///4.jpg"), attempt)())
    assert everything(tmp_path / "out") == before


def test_embeddings_in_an_iceberg_table_keep_their_encoding(made, job):
    schema = made.schema(["valence"], embeddings=True)
    schema = schema.set(schema.get_field_index("embedding"), pa.field("embedding", pa.list_(pa.float32())))
    for run_id, compacted in (("a", False), ("b", True)):
        record = made.commit(run_id, range(20), schema=schema, values=lambda i: {"embedding": [i / 8, 1.0]})
        path = Path(made.output) / record.files[0]
        split = {"use_byte_stream_split": ["embedding.list.element"], "use_dictionary": ["uri"]}
        pq.write_table(pq.read_table(path, partitioning=None), path, **split)
        iceberg.add(made.folder)
        if compacted:
            iceberg.compact(made.folder, None)
    list(job(made.folder, 4, "file:///13.jpg").run())
    rows = made.iceberg.scan().to_arrow()
    assert rows.num_rows == 36
    assert all(row["embedding"] == [row["image_id"] / 8, 1.0] for row in rows.to_pylist())
    for file in iceberg.files(made.folder):
        group = pq.read_metadata(Path(made.output) / file).row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i).encodings for i in range(group.num_columns)}
        assert "BYTE_STREAM_SPLIT" in columns["embedding.list.element"]


def test_an_iceberg_table_in_s3_is_erased_as_well(anywhere, job):
    anywhere.commit("a", range(20))
    iceberg.add(anywhere.folder)
    anywhere.commit("b", range(15, 30), date="2026-01-03")
    iceberg.add(anywhere.folder)
    assert [each.rows for each in job(anywhere.folder, "file:///16.jpg", 17, 2).run()] == [3, 2]
    assert anywhere.in_iceberg().equals(anywhere.rows())
    assert len(anywhere.rows()) == 30
    assert iceberg.earlier_files(anywhere.folder) == set()


def test_an_output_in_s3_is_erased_as_well(anywhere, job):
    anywhere.commit("a", range(20))
    anywhere.commit("b", range(15, 30), date="2026-01-03")
    delta.add(anywhere.folder)
    assert [each.rows for each in job(anywhere.folder, "file:///16.jpg", 17, 2).run()] == [3, 2]
    left = anywhere.rows()
    assert sorted(left["image_id"].to_pylist()) == sorted([*{*range(20)} - {2, 16, 17}, *{*range(15, 30)} - {16, 17}])
    assert anywhere.shown().equals(left)
