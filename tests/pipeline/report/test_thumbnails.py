"""Thumbnails of annotated images: where they are fetched from, and the problems that a page shows instead."""

import base64
import hashlib
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.config import AnnotateConfig
from pipeline.inputs.manifest import write_manifest
from pipeline.report.highlights import Highlight
from pipeline.report.thumbnails import REPORT, settings_of, thumbnails
from pipeline.sources.source import list_items
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord


def image(uri, data, row=0):
    return Highlight(0.0, "", uri, hashlib.sha256(data).hexdigest(), row, 0)


@pytest.fixture
def shown(tmp_path):
    """Return the thumbnails of some highlights, in their order."""

    def show(highlights, source=tmp_path, **settings):
        config = AnnotateConfig(input=str(source), output=str(tmp_path / "out"), run_id="r", **settings)
        found = thumbnails(OutputFolder(str(tmp_path / "out"), {}), config, highlights)
        return [found[each.content_hash] for each in highlights]

    return show


def test_a_picture_is_the_image_as_the_model_sees_it_made_small(shown, images, tmp_path):
    data = images.jpeg(1, 500, 300)
    (tmp_path / "a.jpg").write_bytes(data)
    (found,) = shown([image(f"file://{tmp_path}/a.jpg", data)])
    picture = Image.open(io.BytesIO(base64.b64decode(found.jpeg)))
    assert (picture.format, picture.size, found.problem) == ("JPEG", (REPORT.size, REPORT.size), None)


def test_what_can_t_be_shown_says_why(shown, images, tmp_path):
    (tmp_path / "changed.jpg").write_bytes(images.jpeg(2))
    (tmp_path / "broken.jpg").write_bytes(b"GIF89a no more")
    gone, changed, broken, tar, elsewhere = shown(
        [
            image(f"file://{tmp_path}/gone.jpg", b"1"),
            image(f"file://{tmp_path}/changed.jpg", b"2"),
            image(f"file://{tmp_path}/broken.jpg", b"GIF89a no more"),
            image(f"file://{tmp_path}/shard.tar!/a.jpg", b"3"),
            image("s3://bucket/a.jpg", b"4"),
        ]
    )
    assert gone.problem == "missing: there is no such object"
    assert changed.problem == "the image has changed since it was annotated"
    assert broken.problem.startswith("not_an_image: ")
    assert tar.problem == "missing: its position in the .tar was deleted with the run's manifest"
    assert elsewhere.problem.startswith("forbidden: the table may point to file")
    assert not any(each.jpeg for each in (gone, changed, broken, tar, elsewhere))


def test_an_image_that_is_too_large_is_not_decoded(shown, images, tmp_path):
    data = images.png_that_claims(60_000, 60_000)
    (tmp_path / "bomb.png").write_bytes(data)
    assert shown([image(f"file://{tmp_path}/bomb.png", data)])[0].problem.startswith("too_large: ")


def test_images_in_a_table_s_rows_are_found_by_their_number(shown, images, tmp_path):
    data = [images.jpeg(i) for i in range(5)]
    table = tmp_path / "photos.parquet"
    pq.write_table(pa.table({"image": data}), table, row_group_size=2)
    found = shown([image(f"file://{table}!/{i}", data[i]) for i in (4, 0, 3)], source=table, column="image")
    assert all(each.jpeg for each in found)


def test_while_the_manifest_is_there_an_image_in_a_tar_is_found_by_its_place(shown, images, tar, tmp_path):
    data = {f"{i}.jpg": images.jpeg(i) for i in range(5)}
    tar(tmp_path / "shard.tar", data)
    work = tmp_path / "out" / "_work" / "r"
    manifest = write_manifest(
        OutputFolder(str(tmp_path / "out"), {}), "_work/r/m", list_items(str(tmp_path / "shard.tar"), "uri", {}), block_rows=2
    )
    settled = {"manifest": "m", "rows": manifest.rows, "block_rows": 2, "listed": 5, "known": 0, "retried": 0}
    (work / "plan.json").write_text(json.dumps(settled))
    highlights = [image(f"file://{tmp_path}/shard.tar!/{i}.jpg", data[f"{i}.jpg"], row=i) for i in (4, 1)]
    assert all(each.jpeg for each in shown(highlights, source=tmp_path / "shard.tar"))


def test_settings_of_another_version_are_read_as_far_as_they_are_known(shown):
    config = AnnotateConfig(input="in", output="elsewhere").public()
    output = OutputFolder("s3://out", {"key": "k"})
    about = {"run_id": "r", "model": "m", "date": "2026-01-02", "finished_at": "2026-01-02T00:00Z", "files": ()}
    record = RunRecord.model_validate(about | {"schemes": {}, "counts": {}, "config": config})
    found = settings_of(record.model_copy(update={"config": config | {"a_setting_to_come": 1}}), output)
    assert (found.input, found.output, found.storage_options) == ("in", "s3://out", {"key": "k"})
    assert settings_of(record.model_copy(update={"config": config | {"max_bytes": "many"}}), output) is None
    assert (
        thumbnails(output, None, [image("u", b"")])[image("u", b"").content_hash].problem
        == "this version of UGRIE can't read the run's settings"
    )


def test_an_image_is_found_by_its_uri_where_rows_before_it_were_left_out_for_another_run(shown, images, tmp_path):
    """Another run annotated a.jpg meanwhile: b.jpg, the manifest's second row, is the table's first."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("a.jpg", "b.jpg")):
        (tmp_path / "in" / name).write_bytes(images.jpeg(number))
    output = OutputFolder(str(tmp_path / "out"), {})
    manifest = write_manifest(output, "_work/r/manifest-0", list_items(str(tmp_path / "in"), "uri", {}))
    plan = {"manifest": "manifest-0", "rows": 2, "listed": 2, "known": 0, "retried": 0, "left_out": {}, "block_rows": manifest.block_rows}
    output.write("_work/r/plan.json", json.dumps(plan).encode())
    (found,) = shown([image(f"file://{tmp_path}/in/b.jpg", images.jpeg(1), row=0)], source=tmp_path / "in")
    assert (found.problem, found.jpeg is not None) == (None, True)
