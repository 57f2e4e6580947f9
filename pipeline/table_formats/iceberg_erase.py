"""Erases files from an Iceberg table: from its current snapshot, from earlier ones, and from the manifests that describe them.

A manifest states the minima and maxima of a file's columns, also of a file that was deleted, so it may name what is to be erased. Every
snapshot with such a manifest has to go: the current one is followed by one without it, and then they expire. Each step is made once,
whichever were made before, so after a crash the same call makes the rest.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.storage.parallel import parallel_map
from pipeline.table_formats.iceberg_rewrite import date_of
from pipeline.table_formats.iceberg_table import THREADS, IcebergTable

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestEntry, ManifestFile
    from pyiceberg.table import Transaction
    from pyiceberg.table.snapshots import Snapshot

BOUNDS = ("lower_bounds", "upper_bounds")


def check(table: IcebergTable) -> None:
    """Raise UserError where files can't be replaced or snapshots can't expire, since others have made use of features of the table."""
    from pyiceberg.manifest import DataFileContent, ManifestContent
    from pyiceberg.table.refs import MAIN_BRANCH

    if table.table is None:
        return
    metadata, snapshot = table.table.metadata, table.table.current_snapshot()
    if metadata.format_version != 2:
        problem = f"is of Iceberg's format version {metadata.format_version}, and pyiceberg writes version 2"
        raise UserError(f"{table.shown} {problem}: delete the rows by the engine that changed it, and expire its snapshots")
    if others := sorted(set(metadata.refs) - {MAIN_BRANCH}):
        raise UserError(f"{table.shown} has branches or tags, whose snapshots can't expire ({', '.join(others)}): remove them first")
    with table.readable():
        manifests = snapshot.manifests(table.table.io) if snapshot else []
        deletes = [manifest for manifest in manifests if manifest.content == ManifestContent.DELETES]
        entries = [entry for manifest in deletes for entry in manifest.fetch_manifest_entry(table.table.io)]
    if any(entry.data_file.content == DataFileContent.EQUALITY_DELETES for entry in entries):
        remedy = "let the engine that made them rewrite the files that they change"
        raise UserError(f"{table.shown} has equality deletes, which pyiceberg can't apply: {remedy}")
    if any(task.delete_files for task in table.tasks()):
        raise UserError(f"{table.shown} has files of which rows are deleted without a rewrite (merge-on-read): run `ugrie compact` first")


def replace(table: IcebergTable, replaced: Mapping[str, str | None]) -> bool:
    """Make the next commit that replaces files by others, or by none. Return whether there was one to make; if so, look again.

    Paths are within the output. Once there is none, what snapshots that expired left of metadata is removed. Raises UserError where
    `check` does, and pyiceberg's errors where another commit came first.
    """
    if table.table is None:
        return False
    history = History(table)
    naming = [snapshot for snapshot in table.table.snapshots() if history.names(snapshot) & set(replaced)]
    current = table.table.current_snapshot()
    if current in naming:
        check(table)
        _replace_now(table, replaced)
    elif naming:
        table.table.maintenance.expire_snapshots().by_ids([snapshot.snapshot_id for snapshot in naming]).commit()
    else:
        _remove_metadata(table, history)
    return bool(naming)


class History:
    """The manifests of each snapshot that a table keeps, and the files that each manifest says something of."""

    def __init__(self, table: IcebergTable):
        assert table.table is not None
        snapshots, io = table.table.snapshots(), table.table.io
        lists = parallel_map(lambda snapshot: snapshot.manifests(io), snapshots, THREADS)
        self.manifests = {snapshot.snapshot_id: each for snapshot, each in zip(snapshots, lists, strict=True)}
        unique = {manifest.manifest_path: manifest for each in self.manifests.values() for manifest in each}
        entries = parallel_map(lambda manifest: manifest.fetch_manifest_entry(io, discard_deleted=False), unique.values(), THREADS)
        self.files = {
            path: {table.path(entry.data_file.file_path) for entry in each if _tells(entry)}
            for path, each in zip(unique, entries, strict=True)
        }

    def names(self, snapshot: "Snapshot") -> set[str]:
        """Return the files that a snapshot has, or states minima and maxima of, as paths within the output."""
        return set[str]().union(*(self.files[manifest.manifest_path] for manifest in self.manifests[snapshot.snapshot_id]))


def _tells(entry: "ManifestEntry") -> bool:
    """Return whether an entry is more than a note that its file was deleted."""
    return _is_live(entry) or any(getattr(entry.data_file, name) for name in BOUNDS)


def _is_live(entry: "ManifestEntry") -> bool:
    from pyiceberg.manifest import ManifestEntryStatus

    return entry.status != ManifestEntryStatus.DELETED


def _replace_now(table: IcebergTable, replaced: Mapping[str, str | None]) -> None:
    """Commit a snapshot with the new files in the place of the old ones. Of those that the current one lacks, nothing is added."""
    with table.transaction([]) as transaction:
        overwrite = _overwrite(transaction)
        for task in table.tasks():
            if (old := table.path(task.file.file_path)) in replaced:
                overwrite.delete_data_file(task.file)
                if (new := replaced[old]) is not None:
                    overwrite.append_data_file(table.data_file(transaction, table.file(new, date_of(task))))
        overwrite.commit()


def _overwrite(transaction: "Transaction") -> Any:
    """Return what replaces files, and leaves behind of deleted ones their names, and of those that were deleted before nothing."""
    from pyiceberg.manifest import DATA_FILE_TYPE, DEFAULT_READ_VERSION, ManifestContent, ManifestEntryStatus
    from pyiceberg.table.snapshots import Operation
    from pyiceberg.table.update.snapshot import _OverwriteFiles

    places = [field.name for field in DATA_FILE_TYPE[DEFAULT_READ_VERSION].fields]

    class Overwrite(_OverwriteFiles):
        def _deleted_entries(self) -> "list[ManifestEntry]":
            entries = super()._deleted_entries()
            for entry in entries:
                for name in BOUNDS:
                    entry.data_file[places.index(name)] = None
            return entries

        def _existing_manifests(self) -> "list[ManifestFile]":
            assert self._parent_snapshot_id is not None
            parent = self._transaction.table_metadata.snapshot_by_id(self._parent_snapshot_id)
            assert parent is not None
            kept = []
            for manifest in parent.manifests(self._io):
                entries = [] if manifest.content == ManifestContent.DELETES else manifest.fetch_manifest_entry(self._io, False)
                left = [entry for entry in entries if _is_live(entry) and entry.data_file not in self._deleted_data_files]
                if len(left) == len(entries):
                    kept.append(manifest)
                elif left:
                    with self.new_manifest_writer(self.spec(manifest.partition_spec_id)) as writer:
                        for entry in left:
                            entry.status = ManifestEntryStatus.EXISTING
                            writer.add_entry(entry)
                    kept.append(writer.to_manifest_file())
            return kept

    about = {"ugrie": "clean --erase"}
    return Overwrite(operation=Operation.OVERWRITE, transaction=transaction, io=transaction._table.io, snapshot_properties=about)


def _remove_metadata(table: IcebergTable, history: History) -> None:
    """Remove the manifests that only snapshots had which the table no longer keeps, and then the lists of those.

    Earlier versions of the metadata name them. A commit that is under way names none of them, or fails, since it follows one that is gone.
    """
    from pyiceberg.serializers import FromInputFile

    assert table.table is not None
    io = table.table.io
    kept = set(history.files)
    for entry in reversed(table.table.metadata.metadata_log):
        with suppress(FileNotFoundError):
            snapshots = FromInputFile.table_metadata(io.new_input(entry.metadata_file)).snapshots
            gone = [snapshot for snapshot in snapshots if snapshot.snapshot_id not in history.manifests]
            left = [snapshot for snapshot in gone if io.new_input(snapshot.manifest_list).exists()]
            if gone and not left:
                return  # what is older was removed before
            paths = {manifest.manifest_path for snapshot in left for manifest in snapshot.manifests(io)} - kept
            for path in [*sorted(paths), *(snapshot.manifest_list for snapshot in left)]:
                with suppress(FileNotFoundError):
                    io.delete(path)
