"""Erasing images by the records: what goes, and what stays true."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs
from tests.plugins.erasing import SAME, check_counts, everything, nights, rows_of


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


def test_embeddings_go_with_their_rows(made, job):
    made.commit("a", range(20), keep_embeddings=True)
    before = made.rows()
    list(job(made.folder, "file:///4.jpg", "file:///13.jpg").run())
    after = made.rows()
    assert after.num_rows == 18
    assert after["embedding"].type == before["embedding"].type
    assert after.equals(before.filter(pc.invert(pc.is_in(before["image_id"], pa.array([4, 13])))))


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
