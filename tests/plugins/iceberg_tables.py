"""Iceberg tables: a catalog on SQLite that pyiceberg knows by its name, and deletes, which pyiceberg reads and does not write."""

import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

CATALOG = "prod"


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Catalog"]:
    """An empty catalog named CATALOG, with a namespace `lake`. Its tables are in `tmp_path / "lake"`."""
    from pyiceberg import catalog as module
    from pyiceberg.utils.config import Config

    for name, value in {"TYPE": "sql", "URI": f"sqlite:///{tmp_path}/catalog.db", "WAREHOUSE": f"file://{tmp_path}"}.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__{CATALOG.upper()}__{name}", value)
    monkeypatch.setattr(module, "_ENV_CONFIG", Config())  # read once, when it is imported
    found = module.load_catalog(CATALOG)
    found.create_namespace("lake")
    yield found
    found.close()


def delete_rows(table: "Table", rows: dict[str, list[int]], content: int = 1, **file: Any) -> str:
    """Commit a file that deletes rows by their positions in data files, as other engines do. Return the metadata file's path.

    `content` 2 makes it a file of equality deletes.
    """
    pairs = sorted((path, row) for path, each in rows.items() for row in each)
    path = f"{table.location()}/data/{uuid.uuid4()}-deletes.parquet"
    schema = pa.schema(
        [
            pa.field("file_path", pa.string(), False, {"PARQUET:field_id": "2147483546"}),
            pa.field("pos", pa.int64(), False, {"PARQUET:field_id": "2147483545"}),
        ]
    )
    pq.write_table(pa.table([[each for each, _ in pairs], [row for _, row in pairs]], schema), local(path))
    return _commit(table, {"file_path": path, "file_format": "PARQUET", "record_count": len(pairs), "content": content} | file)


def delete_by_vector(table: "Table", data_file: str, *rows: int) -> str:
    """Commit a deletion vector in a Puffin file, as tables of format 3 have them. Return the metadata file's path."""
    import json

    bitmap = struct.pack("<I", 1681511377) + struct.pack("<qi", 1, 0)
    bitmap += struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    blob = struct.pack(">I", len(bitmap)) + bitmap + struct.pack(">I", zlib.crc32(bitmap))
    properties = {"referenced-data-file": data_file, "cardinality": str(len(rows))}
    about = {"type": "deletion-vector-v1", "fields": [], "snapshot-id": -1, "sequence-number": -1, "offset": 4, "length": len(blob)}
    footer = json.dumps({"blobs": [about | {"properties": properties}]}).encode()
    path = f"{table.location()}/data/{uuid.uuid4()}-deletes.puffin"
    local(path).write_bytes(b"PFA1" + blob + b"PFA1" + footer + struct.pack("<i", len(footer)) + b"\0\0\0\0" + b"PFA1")
    return _commit(table, {"file_path": path, "file_format": "PUFFIN", "record_count": len(rows), "content": 1})


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def data_files(table: "Table") -> list[str]:
    return sorted(task.file.file_path for task in table.scan().plan_files())


def _commit(table: "Table", file: dict[str, Any]) -> str:
    """Write manifest, manifest list and metadata of a snapshot with one more delete file."""
    from pyiceberg.manifest import (
        DataFile,
        DataFileContent,
        FileFormat,
        ManifestContent,
        ManifestEntry,
        ManifestEntryStatus,
        ManifestWriterV2,
        write_manifest_list,
    )
    from pyiceberg.table.snapshots import Operation, Snapshot, Summary
    from pyiceberg.typedef import Record

    class Deletes(ManifestWriterV2):
        def content(self) -> ManifestContent:
            return ManifestContent.DELETES

    before, metadata, io = table.current_snapshot(), table.metadata, table.io
    number, sequence = 1_000_000 + len(metadata.snapshots), metadata.last_sequence_number + 1
    file = file | {"content": DataFileContent(file["content"]), "file_format": FileFormat(file["file_format"])}
    entry = ManifestEntry.from_args(
        status=ManifestEntryStatus.ADDED,
        snapshot_id=number,
        data_file=DataFile.from_args(partition=Record(), file_size_in_bytes=local(file["file_path"]).stat().st_size, **file),
    )
    path = f"{table.location()}/metadata/{uuid.uuid4()}"
    with Deletes(table.spec(), table.schema(), io.new_output(f"{path}-m0.avro"), number, "deflate") as writer:
        writer.add_entry(entry)
    manifests = [writer.to_manifest_file(), *before.manifests(io)]
    with write_manifest_list(2, io.new_output(f"{path}.avro"), number, before.snapshot_id, sequence, "deflate") as listed:
        listed.add_manifests(manifests)
    snapshot = Snapshot(
        snapshot_id=number,
        parent_snapshot_id=before.snapshot_id,
        sequence_number=sequence,
        timestamp_ms=metadata.last_updated_ms + 1,
        manifest_list=f"{path}.avro",
        summary=Summary(Operation.DELETE),
        schema_id=table.schema().schema_id,
    )
    refs = {"main": metadata.refs["main"].model_copy(update={"snapshot_id": number})}
    update = {"snapshots": [*metadata.snapshots, snapshot], "current_snapshot_id": number, "refs": refs, "last_sequence_number": sequence}
    newest = Path(local(table.metadata_location)).parent / f"{90000 + len(metadata.snapshots):05}-{uuid.uuid4()}.metadata.json"
    newest.write_text(metadata.model_copy(update=update).model_dump_json())
    return str(newest)
