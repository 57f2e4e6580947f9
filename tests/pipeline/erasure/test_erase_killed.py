"""Every moment at which an erasure can die."""

import shutil

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from pipeline.erasure import erase, pages
from pipeline.maintenance.vacuum import leftovers
from pipeline.table import journal
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs
from pipeline.table_formats import delta, iceberg, iceberg_io, table_format
from tests.plugins.erasing import SAME, check_counts, check_metadata, delta_paths, delta_rows, everything, iceberg_rows, nights, rows_of


class Died(BaseException):
    """A kill: nothing catches it but the test."""


def killed_at(patch, step):
    """Let the process die before its change of storage of this number: from then on it can change nothing."""
    counted = 0

    def dying(original):
        def change(*arguments, **settings):
            nonlocal counted
            counted += 1
            if counted >= step:
                raise Died
            return original(*arguments, **settings)

        return change

    for name in ("write", "upload", "remove", "create"):
        patch.setattr(OutputFolder, name, dying(getattr(OutputFolder, name)))
    patch.setattr(delta.DeltaLog, "replace", dying(delta.DeltaLog.replace))
    patch.setattr(iceberg_io, "write_atomic", dying(iceberg_io.write_atomic))
    patch.setattr(iceberg_io.StorageIO, "delete", dying(iceberg_io.StorageIO.delete))
    patch.setattr(SqlCatalog, "commit_table", dying(SqlCatalog.commit_table))


@pytest.mark.parametrize(("kind", "count"), [("in lists", 1), ("delta", 2), ("iceberg", 1)])
def test_wherever_it_dies_readers_see_whole_nights_and_the_same_command_finishes(night, tmp_path, job, in_lists, kind, count):
    """It is killed before its first change of the output, then before its second, and so on, until it comes to its end."""
    folder, whole = tmp_path / "out", tmp_path / "whole"
    nights(night, folder, count, schemes=("polarity2", "valence"))
    output = OutputFolder(str(folder), {})
    if kind == "in lists":
        in_lists(output)
    for record in past_runs(output):
        output.write(f"runs/{record.run_id}.html", b"a page with s3://b/0/0.jpg")
    if kind in table_format.FORMATS:
        table_format.FORMATS[kind].add(output)
    before = {row["uri"] + row["run_id"]: row for row in rows_of(folder).to_pylist()}
    manifests = set(folder.rglob("*.avro"))
    shutil.copytree(folder, whole)
    wanted = None
    for step in range(1, 100):
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pages.page, "write", lambda output, run_id: output.write(f"runs/{run_id}.html", b"a new page"))
            patch.setattr(pages.index, "rebuild", lambda output: None)
            ended = False
            try:
                with patch.context() as dying:
                    killed_at(dying, step)
                    list(job(output, SAME, "s3://b/1/5.jpg").run())
                    ended = True
            except Died:
                pass
            found = [rows_of(folder).to_pylist()]
            if kind in table_format.FORMATS:
                shown = delta_rows(folder) if kind == "delta" else iceberg_rows(folder)
                found.append([{k: v for k, v in row.items() if k != "dt"} for row in shown])
            for rows in found:
                by_run = {}
                for row in rows:
                    assert row == before[row["uri"] + row["run_id"]]
                    by_run.setdefault(row["run_id"], []).append(row["content_hash"] == SAME)
                assert all(len(same) in (43, 39, 38) and any(same) == (len(same) == 43) for same in by_run.values())
            assert journal.replaced_files(output).isdisjoint(each.path for each in leftovers(output, erase.FOREVER))
            if not ended:
                list(job(output, SAME, "s3://b/1/5.jpg").run())
        check_counts(folder)
        assert SAME.encode() not in everything(folder / "annotations" / "dt=2026-01-01")
        assert b"s3://b/0/0.jpg" not in everything(folder)
        assert {path.read_bytes() for path in folder.glob("runs/*.html")} == {b"a new page"}
        left = rows_of(folder)
        wanted = wanted or left
        assert left.equals(wanted)
        files = sorted(str(path.relative_to(folder)) for path in folder.glob("annotations/dt=*/*"))
        assert files == sorted(file for record in past_runs(output) for file in record.files)
        lists = sorted(str(path.relative_to(folder)) for path in folder.glob("runs/*.files/*"))
        assert lists == sorted(path for record in past_runs(output) for path in record.file_lists)
        assert bool(lists) == (kind == "in lists")
        if kind == "delta":
            assert sorted(f"annotations/{path}" for path in delta_paths(folder)) == files
        if kind == "iceberg":
            assert sorted(iceberg.files(output)) == files
            check_metadata(folder)
            assert not manifests & set(folder.rglob("*.avro"))
        if ended:
            break
    assert ended
    assert step > 10 * count
    if kind == "iceberg":
        assert set(folder.rglob("*.avro")) == check_metadata(folder)  # a dead one may leave more, of what it did not commit
