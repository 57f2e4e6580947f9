"""Parts of a listing: their files, and what is said of several of them together."""

import pyarrow.parquet as pq
import pytest

from pipeline.inputs.item import Item
from pipeline.inputs.manifest import image_id
from pipeline.planning import part
from pipeline.planning.part import Notes, PartWriter
from pipeline.storage.left_out import MARKER, OUTPUT, LeftOut
from pipeline.table.output_folder import OutputFolder

ITEMS = [Item(f"s3://b/{i}.jpg", i, "v", "x.tar", i * 512, f"s3://b/{i}.jpg?sig") for i in range(8)]


def test_images_are_written_in_parts_of_a_size_with_all_that_is_listed_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(part, "BATCH", 2)
    monkeypatch.setattr(part, "MAX_ROWS", 6)
    written = list(PartWriter(OutputFolder(str(tmp_path), {}), "listing").write(iter(ITEMS)))
    assert [each.rows for each in written] == [6, 2]
    rows = [row for each in written for row in pq.read_table(tmp_path / each.path).to_pylist()]
    assert [(row["uri"], row["size"], row["version"], row["container"], row["position"], row["link"]) for row in rows] == [
        item[:6] for item in ITEMS
    ]
    assert [row["image_id"] for row in rows] == [image_id(item) for item in ITEMS]
    assert not any(row["suppressed"] for row in rows)


def test_nothing_is_written_where_nothing_is_listed(tmp_path):
    assert list(PartWriter(OutputFolder(str(tmp_path), {}), "listing").write([])) == []
    assert not (tmp_path / "listing").exists()


@pytest.mark.parametrize("ends", [(), (1,), (2,), (3,), (1, 2, 3), (2, 5)])
def test_what_is_left_out_is_counted_alike_however_the_listing_was_divided(ends):
    found = [LeftOut("a/_temporary", MARKER)] * 4 + [LeftOut("out/runs", OUTPUT), LeftOut("z/.b", MARKER)]
    notes = Notes()
    for start, end in zip((0, *ends), (*ends, len(found)), strict=True):
        own = Notes()
        for each in found[start:end]:
            own.leave_out(each)
        notes.add(own)
    assert notes.left_out == {MARKER: 2, OUTPUT: 1}
