"""Erasing images: what goes, what stays true, and every moment at which it can die."""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from pipeline.erasure import erase, pages
from pipeline.erasure.erase import EraseJob
from pipeline.errors import UserError
from pipeline.maintenance.vacuum import leftovers, remove
from pipeline.table import journal
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs
from pipeline.table.suppressed import read_list
from pipeline.table_formats import delta, iceberg, iceberg_io, table_format
from pipeline.table_formats.iceberg_catalog import TableName
from pipeline.table_formats.iceberg_table import IcebergTable


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Whoever finds a journal takes its owner for dead, without waiting half a minute."""
    monkeypatch.setattr(journal, "_wait_for_life", lambda *_: None)


@pytest.fixture
def job(tmp_path):
    """Return a function that makes the job to erase some images from an output."""

    def make(output, *entries):
        (tmp_path / "list.txt").write_text("\n".join(map(str, entries)))
        folder = output if isinstance(output, OutputFolder) else OutputFolder(str(output), {})
        return EraseJob(folder, *read_list(str(tmp_path / "list.txt"), {}))

    return make


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


SAME = hashlib.sha256(b"same").hexdigest()


def test_rows_go_by_uri_id_and_content_and_all_else_stays(night, tmp_path, job):
    folder = tmp_path / "out"
    nights(night, folder)
    before = rows_of(folder)
    named = pc.or_kleene(
        pc.equal(before["content_hash"], SAME), pc.is_in(before["uri"], pa.array(["s3://b/2/5.jpg", "s3://b/3/gone1.jpg"]))
    )
    named = pc.or_kleene(named, pc.equal(before["image_id"], before["image_id"][7]))
    old = set(folder.rglob("*.parquet"))
    done = job(folder, SAME, "s3://b/2/5.jpg", "s3://b/3/gone1.jpg", before["image_id"][7].as_py(), "s3://b/none.jpg")
    erased = list(done.run())
    assert [(each.run_id, each.rows, each.of) for each in erased] == [
        ("night-2026-01-01", 5, 43),
        ("night-2026-01-02", 5, 43),
        ("night-2026-01-03", 5, 43),
    ]
    after = rows_of(folder)
    assert after.equals(before.filter(pc.invert(pc.fill_null(named, False))))
    assert after.schema.metadata == before.schema.metadata
    assert done.entries.missing == 1
    assert done.remaining == []
    check_counts(folder)
    assert not old & set(folder.rglob("*.parquet"))
    data = everything(folder)
    assert b"gone1.jpg" not in data
    assert SAME.encode() not in data
    assert [each.model_dump(include={"rows", "sha256"}) for run in past_runs(done.output) for each in run.erasures] == [
        {"rows": 5, "sha256": done.about.sha256}
    ] * 3
    assert not (folder / "_work" / "_erase").exists() or not list((folder / "_work" / "_erase").iterdir())


def test_nothing_is_touched_where_nothing_is_found(night, tmp_path, job):
    folder = tmp_path / "out"
    nights(night, folder)
    OutputFolder(str(folder), {}).write("runs/night-2026-01-01.html", b"a page")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "index.html"}
    done = job(folder, "s3://b/none.jpg", 17, "0" * 64)
    assert list(done.run()) == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "index.html"} == before
    assert done.entries.missing == 3


def test_a_night_of_which_all_rows_go_has_no_file(night, tmp_path, job):
    folder = tmp_path / "out"
    nights(night, folder, 2)
    uris = [row for row in rows_of(folder)["uri"].to_pylist() if row.startswith("s3://b/2/")]
    list(job(folder, SAME, *uris).run())
    record = past_runs(OutputFolder(str(folder), {}))[0]
    assert (record.run_id, record.files, record.counts.rows, record.counts.erased) == ("night-2026-01-02", (), 0, 43)
    check_counts(folder)


def test_the_preview_says_what_would_go_and_changes_nothing(night, tmp_path, job):
    folder = tmp_path / "out"
    nights(night, folder)
    (folder / "runs" / "night-2026-01-02.html").write_text("a page")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    planned = job(folder, SAME, "s3://b/2/5.jpg")
    listed = list(planned.preview())
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert planned.pages == ["runs/night-2026-01-02.html"]
    done = job(folder, SAME, "s3://b/2/5.jpg")
    assert list(done.run()) == listed
    assert done.pages == planned.pages


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


def test_embeddings_go_with_their_rows(made, job):
    made.commit("a", range(20), keep_embeddings=True)
    before = made.rows()
    list(job(made.folder, "file:///4.jpg", "file:///13.jpg").run())
    after = made.rows()
    assert after.num_rows == 18
    assert after["embedding"].type == before["embedding"].type
    assert after.equals(before.filter(pc.invert(pc.is_in(before["image_id"], pa.array([4, 13])))))


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


def test_files_of_dead_drivers_go_and_those_of_others_are_named(night, tmp_path, job):
    folder = tmp_path / "out"
    (record,) = nights(night, folder, 1, schemes=("valence",))
    data = (folder / record.files[0]).read_bytes()
    day = folder / "annotations" / "dt=2026-01-01"
    for name in ("part-night-2026-01-01-99999999-00000", "part-busy-99999999-00000", "notes"):
        (day / f"{name}.parquet").write_bytes(data)
    (day / "text.parquet").write_bytes(b"no table")
    done = job(folder, SAME)
    list(done.run())
    assert not (day / "part-night-2026-01-01-99999999-00000.parquet").exists()
    said = "\n".join(done.remaining)
    assert "notes.parquet stay, since no run wrote it: remove it" in said
    assert "part-busy-99999999-00000.parquet stay, since run busy is not committed: finish it, or remove it by `ugrie clean`" in said
    assert "text.parquet can't be read" in said


def test_pages_that_show_an_image_are_written_again(night, tmp_path, job, images):
    """The night's own, that of several nights, and that of all; another night's is left as it is."""
    from pipeline.report import page

    (tmp_path / "in").mkdir()
    folder = tmp_path / "out"
    for day in (1, 2):
        shown = []
        for i in range(4):
            path = tmp_path / "in" / f"{day}-{i}.jpg"
            path.write_bytes(images.jpeg(10 * day + i))
            shown.append((f"file://{path}", path.read_bytes()))
        night(folder, f"2026-01-{day:02}", shown, schemes=("valence",), input=str(tmp_path / "in"))
    output = OutputFolder(str(folder), {})
    for selected in ({"run_id": "night-2026-01-01"}, {"run_id": "night-2026-01-02"}, {"since": past_runs(output)[-1].date}):
        page.write(output, **selected)
    pages_before = {path.name: path.read_text() for path in folder.rglob("*.html")}
    assert set(pages_before) == {"night-2026-01-01.html", "night-2026-01-02.html", "nights_2026-01-01_2026-01-02.html", "index.html"}
    assert "1-2.jpg" in pages_before["night-2026-01-01.html"]
    list(job(folder, f"file://{tmp_path}/in/1-2.jpg").run())
    after = {path.name: path.read_text() for path in folder.rglob("*.html")}
    assert set(after) == set(pages_before)
    assert "1-2.jpg" not in "".join(after.values())
    assert "1-1.jpg" in after["night-2026-01-01.html"]
    assert "jpeg;base64" in after["night-2026-01-01.html"]
    assert "1 was erased since" in after["night-2026-01-01.html"]
    assert after["night-2026-01-02.html"] == pages_before["night-2026-01-02.html"]
