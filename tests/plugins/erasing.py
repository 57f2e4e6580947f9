"""Nights to erase images from, and checks of what is left."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs
from pipeline.table_formats.iceberg_catalog import TableName
from pipeline.table_formats.iceberg_table import IcebergTable

SAME = hashlib.sha256(b"same").hexdigest()


def nights(night, folder, count=3, **settings):
    """Write nights of forty images each, of which every tenth is the same in all of them, and failures."""
    records = []
    for day in range(1, count + 1):
        images = [(f"s3://b/{0 if i % 10 == 0 else day}/{i}.jpg", b"same" if i % 10 == 0 else f"{day} {i}".encode()) for i in range(40)]
        failures = [(f"s3://b/{day}/gone{i}.jpg", "missing", "gone") for i in range(3)]
        records.append(night(folder, f"2026-01-{day:02}", images, failures, parts=2, group_rows=7, **settings))
    return records


def rows_of(folder):
    """The rows of all committed runs, by the records, with the record's own idea of how many there are."""
    records = [json.loads(path.read_text()) for path in sorted((folder / "runs").glob("*.json"))]
    lists = [json.loads((folder / path).read_text()) for record in records for path in record.get("file_lists", ())]
    tables = [pq.read_table(folder / file, partitioning=None) for each in records + lists for file in each["files"]]
    table = pa.concat_tables(tables)
    assert len(table) == sum(record["counts"]["rows"] for record in records)
    return table


def check_counts(folder):
    """Check that each record counts what its files hold."""
    from pipeline.erasure.counts import ErasedCounts
    from pipeline.table.schema import file_schemes

    for record in past_runs(OutputFolder(str(folder), {})):
        counted = ErasedCounts()
        for file in record.files:
            table = pq.read_table(folder / file, partitioning=None)
            counted.add(table, file_schemes(table.schema.metadata))
        assert record.counts.rows == counted.rows
        assert record.counts.status == dict(counted.status)
        if record.files:
            assert record.counts.labels == {name: dict(labels) for name, labels in counted.labels.items()}
            assert record.counts.sums == {name: pytest.approx(total, abs=0.02) for name, total in counted.sums.items()}
        assert record.counts.listed == record.counts.known + record.counts.rows + record.counts.erased


def everything(folder):
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def iceberg_rows(folder):
    """The rows of the table now; each earlier snapshot that it keeps can be read as well."""
    table = IcebergTable(OutputFolder(str(folder), {}), TableName()).table
    for snapshot in table.snapshots():
        table.scan(snapshot_id=snapshot.snapshot_id).to_arrow()
    return table.scan().to_arrow().to_pylist()


def check_metadata(folder):
    """Check that manifests state minima and maxima only of files that are there. Return the manifests of all snapshots and their lists."""
    table = IcebergTable(OutputFolder(str(folder), {}), TableName()).table
    manifests = {each.manifest_path: each for snapshot in table.snapshots() for each in snapshot.manifests(table.io)}
    for manifest in manifests.values():
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False):
            assert Path(entry.data_file.file_path).exists() or not entry.data_file.lower_bounds
    return {Path(path) for path in (*manifests, *(snapshot.manifest_list for snapshot in table.snapshots()))}


def delta_rows(folder):
    from deltalake import DeltaTable

    return DeltaTable(folder / "annotations").to_pyarrow_table().to_pylist()


def delta_paths(folder):
    from deltalake import DeltaTable

    return pa.table(DeltaTable(folder / "annotations").get_add_actions())["path"].to_pylist()
