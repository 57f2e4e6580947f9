"""An input counted and sampled without starting a run."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.estimate.scan import RandomSample, scan_input
from pipeline.inputs.manifest import SCHEMA
from pipeline.run.plan import tables_of
from pipeline.table.schema import SCHEMA_VERSION


@pytest.fixture
def found(tmp_path):
    """Scan a source for an output in the test's folder."""

    def look(source, size=8, **settings):
        config = AnnotateConfig(input=str(source), output=str(tmp_path / "out"), **settings)
        return scan_input(config, tables_of(config), size)

    return look


def test_images_are_counted_and_some_drawn_and_nothing_is_written(found, corpus, tmp_path):
    about = found(corpus.folder)
    sizes = [path.stat().st_size for path in corpus.files]
    assert (about.listed, about.known, about.new) == (40, 0, 40)
    assert (about.bytes, about.sized, about.in_files) == (sum(sizes), 40, 0)
    assert (about.copies, about.repost_share) == (None, None)
    uris = [f"file://{path}" for path in corpus.files]
    places = [uris.index(row["uri"]) for row in about.sample]
    assert len(set(places)) == 8
    assert places == sorted(places)
    assert not (tmp_path / "out").exists()


def test_a_sample_is_no_larger_than_what_is_new(found, corpus):
    assert len(found(corpus.folder, size=100).sample) == 40
    assert len(found(corpus.folder, size=100, limit=5).sample) == 5


def test_images_on_a_list_are_counted_and_not_drawn(found, corpus, tmp_path):
    named = [f"file://{path}" for path in corpus.files[:5]]
    (tmp_path / "list.txt").write_text("\n".join(named))
    about = found(corpus.folder, size=100, suppress=str(tmp_path / "list.txt"))
    assert (about.listed, about.suppressed, about.known, about.new) == (40, 5, 0, 35)
    assert not {row["uri"] for row in about.sample} & set(named)
    (tmp_path / "list.txt").write_text("photo.jpg")
    with pytest.raises(UserError, match=r"line 1: 'photo\.jpg' names no image"):
        found(corpus.folder, suppress=str(tmp_path / "list.txt"))


def test_every_image_is_as_likely_as_any_other_to_be_drawn():
    draw, times = np.random.default_rng(0), np.zeros(30)
    for _ in range(300):
        sample = RandomSample(3, draw)
        for start in range(0, 30, 7):
            sample.add(pa.table({"image_id": np.arange(start, min(start + 7, 30))}))
        ids = [row["image_id"] for row in sample.rows]
        assert len(ids) == 3
        assert ids == sorted(ids)
        times[ids] += 1
    assert times.sum() == 900
    assert 10 < times.min() <= times.max() < 55, "30 on average"


def test_copies_are_told_by_their_etags(found, s3, images):
    for name, seed in (("a", 1), ("b", 2), ("c", 1), ("d", 1)):
        s3.put(f"survey/{name}.jpg", images.jpeg(seed))
    about = found(f"s3://{s3.bucket}/survey", storage_options=s3.options)
    assert (about.new, about.copies) == (4, 2)


def test_what_earlier_nights_annotated_and_copied_is_counted(found, corpus, tmp_path):
    config = AnnotateConfig(input=str(corpus.folder), output=str(tmp_path / "out"))
    sample = found(corpus.folder, size=40).sample
    (tmp_path / "out" / "runs").mkdir(parents=True)
    ids = pa.array([row["image_id"] for row in sample[:10]], SCHEMA.field("image_id").type)
    pq.write_table(pa.table({"image_id": ids}), tmp_path / "out" / "part.parquet")
    record = {
        "run_id": "r",
        "schema_version": SCHEMA_VERSION,
        "model": tables_of(config).model,
        "tower": tables_of(config).tower,
        "date": "2026-01-02",
        "finished_at": "2026-01-02T03:00:00+00:00",
        "schemes": dict.fromkeys(("polarity3", "polarity2", "mikels8", "valence", "arousal"), "ordinal"),
        "counts": {"rows": 10, "reposts": {"run": 1, "earlier": 2}},
        "files": ["part.parquet"],
        "config": {},
    }
    (tmp_path / "out" / "runs" / "r.json").write_text(json.dumps(record))
    others = record | {"run_id": "other", "model": "another@1", "counts": {"rows": 10, "reposts": {"run": 9, "earlier": 0}}, "files": []}
    (tmp_path / "out" / "runs" / "other.json").write_text(json.dumps(others))
    about = found(corpus.folder, size=40)
    assert (about.known, about.new, about.repost_share) == (10, 30, pytest.approx(0.3))
    assert [row["image_id"] for row in about.sample] == [row["image_id"] for row in sample[10:]]
