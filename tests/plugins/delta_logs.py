"""Delta tables written by hand from the specification, with what deltalake reads and does not write: deletion vectors, column mapping."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
Add = dict[str, Any]


def write_file(root: Path, path: str, table: pa.Table, partition: dict[str, str | None] | None = None, **rest: Any) -> Add:
    """Write a Parquet file at a path, which is encoded in the log, and return its `add` action."""
    from urllib.parse import quote

    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=3)
    add = {"path": quote(path, safe="/="), "partitionValues": partition or {}, "size": file.stat().st_size, "modificationTime": 1}
    return add | {"dataChange": True, "stats": json.dumps({"numRecords": len(table)})} | rest


def inline_vector(*rows: int) -> dict[str, Any]:
    """Return a deletion vector of these rows that is in the log itself."""
    data = _bitmap(*rows)
    text = _z85(data + b"\0" * (-len(data) % 4))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}


def vector_in_file(root: Path, *rows: int) -> dict[str, Any]:
    """Write a deletion vector of these rows into a file beside the data files."""
    data, name = _bitmap(*rows), bytes(range(16))
    uuid = f"{name[:4].hex()}-{name[4:6].hex()}-{name[6:8].hex()}-{name[8:10].hex()}-{name[10:].hex()}"
    (root / f"deletion_vector_{uuid}.bin").write_bytes(b"\1" + struct.pack(">i", len(data)) + data + struct.pack(">I", zlib.crc32(data)))
    return {"storageType": "u", "pathOrInlineDv": _z85(name), "offset": 1, "sizeInBytes": len(data), "cardinality": len(rows)}


def write_log(
    root: Path, schema: list[dict[str, Any]], adds: list[Add], partitions: tuple[str, ...] = (), mode: str | None = None, version: int = 0
) -> Path:
    """Write a version of a table's log, the first with its protocol and schema."""
    features = ["deletionVectors", "timestampNtz", *(["columnMapping"] if mode else [])]
    metadata = {
        "id": "7d12e6a0-f99b-4f93-8a25-bc0ef9cde715",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": schema}),
        "partitionColumns": list(partitions),
        "configuration": {"delta.columnMapping.mode": mode} if mode else {},
        "createdTime": 1,
    }
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    actions = [{"protocol": protocol}, {"metaData": metadata}] if version == 0 else []
    log = root / "_delta_log" / f"{version:020}.json"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("\n".join(json.dumps(each) for each in [*actions, *({"add": add} for add in adds)]))
    return root


def column(name: str, kind: Any, physical: str | None = None, number: int = 0) -> dict[str, Any]:
    mapping = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": physical} if physical else {}
    return {"name": name, "type": kind, "nullable": True, "metadata": mapping}


def _bitmap(*rows: int) -> bytes:
    """Return the rows, below 65536, as a RoaringBitmapArray of one bitmap with one array container."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    return struct.pack("<iqi", 1681511377, 1, 0) + bitmap


def _z85(data: bytes) -> str:
    words = (int.from_bytes(data[i : i + 4], "big") for i in range(0, len(data), 4))
    return "".join(Z85[word // 85**power % 85] for word in words for power in (4, 3, 2, 1, 0))
