"""Finds rows of images to erase in the table's files, and rewrites a file without them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.erasure.counts import ErasedCounts
from pipeline.errors import StorageError
from pipeline.storage.client import naming_full_disk
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import public_message
from pipeline.table.kept_columns import kept_type
from pipeline.table.output_folder import OutputFolder
from pipeline.table.schema import SchemeMetadata, file_schemes
from pipeline.table.suppressed import Suppressed

AHEAD = 8 * 2**20  # bytes of a file that are read at once
SPLIT = "BYTE_STREAM_SPLIT"
THREADS = 16  # which wait for storage, most of the time


@dataclass(frozen=True)
class Named:
    """How many of a file's rows are of images to erase, and the file's size in bytes."""

    file: str
    named: int
    rows: int
    bytes: int


class Entries:
    """The entries of a list, and which of them have been found in the table."""

    def __init__(self, suppressed: Suppressed):
        self.suppressed = suppressed
        self.found = {name: np.zeros(count, bool) for name, count in suppressed.counts.items()}

    def rows(self, rows: pa.Table) -> np.ndarray:
        """Return which rows are named, as booleans, and note by which entries."""
        named = np.zeros(len(rows), bool)
        for name, indices in self.suppressed.find(rows).items():
            self.found[name][indices[indices >= 0]] = True
            named |= indices >= 0
        return named

    @property
    def missing(self) -> int:
        """The number of entries that name no row."""
        return sum(int((~found).sum()) for found in self.found.values())


def find(output: OutputFolder, files: Iterable[str], entries: Entries) -> list[Named]:
    """Return those of the files (paths within the output) that have rows to erase.

    A file that is gone has none, nor has one without the table's columns. Raises StorageError for a file that can't be read.
    """
    return [found for found in parallel_map(lambda file: _find(output, file, entries), files, THREADS) if found.named]


def _find(output: OutputFolder, file: str, entries: Entries) -> Named:
    columns = entries.suppressed.columns
    try:
        with output.open(file) as opened:
            parquet = pq.ParquetFile(opened, pre_buffer=True)
            metadata, named = parquet.metadata, 0
            if set(columns) <= set(parquet.schema_arrow.names):
                for group in range(metadata.num_row_groups):
                    named += int(entries.rows(parquet.read_row_group(group, columns, use_threads=False)).sum())
            return Named(file, named, metadata.num_rows, opened.seek(0, 2))
    except FileNotFoundError:
        return Named(file, 0, 0, 0)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(output, file, error) from None


def rewrite(
    output: OutputFolder, file: str, target: str | None, suppressed: Suppressed, schemes: Mapping[str, SchemeMetadata] | None = None
) -> dict[str, ErasedCounts]:
    """Write a file's other rows to `target`, in the same form, and read it back. With None for a target there must be no other rows.

    Return the counts of the rows that are not in it, by run. `schemes` are those of a file that describes none, such as a compaction's. It
    goes by way of the local disk, a row group at a time. Raises StorageError.
    """
    erased: dict[str, ErasedCounts] = {}
    kept = 0
    with TemporaryDirectory(prefix="ugrie-") as temporary, naming_full_disk(temporary):
        local = Path(temporary) / "rest.parquet"
        try:
            with output.open(file, ahead=AHEAD) as opened:
                parquet = pq.ParquetFile(opened)
                schema, metadata = _without_views(parquet.schema_arrow), parquet.metadata
                if b"ugrie" in (schema.metadata or {}):
                    schemes = file_schemes(schema.metadata)
                encodings = {"use_dictionary": _encoded(metadata, "DICTIONARY"), "use_byte_stream_split": _encoded(metadata, SPLIT)}
                with pq.ParquetWriter(local, schema, compression="zstd", **encodings) as writer:
                    for group in range(metadata.num_row_groups):
                        rows = parquet.read_row_group(group, use_threads=False)
                        rows = rows if rows.schema.equals(schema) else rows.cast(schema)
                        named = suppressed.rows(rows)
                        if named.any():
                            _count(rows.filter(named), erased, schemes or {})
                        if not named.all():
                            kept += int((~named).sum())
                            writer.write_table(rows.filter(~named))
        except (OSError, pa.ArrowException) as error:
            raise unreadable(output, file, error) from None
        if bool(kept) != (target is not None):
            raise StorageError(f"{output.absolute(file)} has changed while its rows were erased: give the command again")
        if target is not None:
            output.upload(str(local), target)
            if not output.holds(target, str(local)) or pq.read_metadata(local).num_rows != kept:
                raise StorageError(f"{output.absolute(target)} does not read back as it was written: give the command again")
    return erased


def _count(rows: pa.Table, erased: dict[str, ErasedCounts], schemes: Mapping[str, SchemeMetadata]) -> None:
    for run_id in pc.unique(rows["run_id"]).to_pylist():
        erased.setdefault(run_id, ErasedCounts()).add(rows.filter(pc.equal(rows["run_id"], run_id)), schemes)


def unreadable(output: OutputFolder, file: str, error: Exception) -> StorageError:
    """Return the error for a file that can't be read."""
    problem = public_message(error, output.options)
    return StorageError(f"{output.absolute(file)} can't be read ({problem}): restore it or remove it, and give the command again")


def _without_views(schema: pa.Schema) -> pa.Schema:
    """Return a schema without views of text, which deltalake's writers state, and which Arrow can't filter."""
    if not any("view" in str(kind) for kind in schema.types):
        return schema
    return pa.schema([field.with_type(kept_type(field.type)) for field in schema], schema.metadata)


def _encoded(metadata: pq.FileMetaData, encoding: str) -> list[str]:
    """Return the columns, by their Parquet paths, that are encoded in a way, such as with a dictionary."""
    group = metadata.row_group(0) if metadata.num_row_groups else None
    columns = [group.column(i) for i in range(group.num_columns)] if group else []
    return [column.path_in_schema for column in columns if any(encoding in each for each in column.encodings)]
