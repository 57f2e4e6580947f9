"""Candidates of a review: bounded pools of different images, the same in whichever order rows are read."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from pipeline.report.row_groups import run_files
from pipeline.review.pools import Pool, Reader, draw, ids_of, uncertainty
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import past_runs
from pipeline.table.schema import SchemeMetadata


def hashes(count):
    return [hashlib.sha256(b"%d" % i).hexdigest() for i in range(count)]


def test_a_pool_keeps_the_lowest_keys_of_different_images_in_whichever_order_they_come():
    rng = np.random.default_rng(0)
    ids = rng.integers(300, size=5000).astype(np.uint64)
    keys = draw(ids, 1)
    pools = [Pool(50), Pool(50)]
    for pool, order in zip(pools, (np.arange(5000), rng.permutation(5000)), strict=True):
        for part in np.array_split(order, 17):
            pool.add(keys[part], ids[part], part)
    lowest = sorted({(key, identity) for key, identity in zip(keys.tolist(), ids.tolist(), strict=True)})[:50]
    for pool in pools:
        assert list(zip(pool.keys.tolist(), pool.ids.tolist(), strict=True)) == lowest
        assert (ids[pool.places] == pool.ids).all()


def test_draws_are_uniform_and_depend_on_the_seed_and_the_image_alone():
    ids = ids_of(pa.chunked_array([hashes(4000)]))
    first, other = draw(ids, 1), draw(ids, 2)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.05
    assert (draw(ids[::-1], 1) == first[::-1]).all()
    assert np.histogram(first, 10, (0, 1))[0] == pytest.approx(400, rel=0.2)


def test_ids_are_the_first_64_bits_of_a_hash():
    found = hashes(3)
    assert ids_of(pa.chunked_array([found[:1], found[1:]])).tolist() == [int(text[:16], 16) for text in found]
    assert ids_of(pa.chunked_array([found]).slice(1)).tolist() == [int(text[:16], 16) for text in found[1:]]


def test_uncertainty_is_that_of_a_uniform_distribution_at_most():
    mood = SchemeMetadata("categorical", ["a", "b", "c", "d"])
    level = SchemeMetadata("ordinal", ["low", "mid", "high"], values=[1, 2, 3])
    probs = {"mood": np.array([[0.25] * 4, [1, 0, 0, 0]]), "level": np.array([[0.5, 0, 0.5], [0, 1, 0]])}
    found = uncertainty({"mood": mood, "level": level}, probs)
    assert found["mood"] == pytest.approx([1, 0], abs=1e-9)
    assert found["level"] == pytest.approx([1, 0])


@pytest.fixture
def read(night, tmp_path):
    """Return the candidates of an output with these images."""

    def read(images, count=5, **settings):
        night(tmp_path, "2026-01-01", images, [("s3://b/x", "missing", "gone")], group_rows=16, parts=2)
        output = OutputFolder(str(tmp_path), {})
        files = run_files(output, past_runs(output))
        return Reader(output, files, files[0].schemes, 0, **settings).candidates(count)

    return read


def test_candidates_are_the_annotated_rows_each_image_once(read):
    images = [(f"s3://b/{i}.jpg", b"%d" % (i % 40)) for i in range(60)]
    found = read(images)
    assert len(found) == found.population == 40
    assert found.exact
    assert sorted(found.random.tolist()) == list(range(40))
    for row in found.rows:
        assert images[row.row][0] == row.uri
        assert hashlib.sha256(images[row.row][1]).hexdigest() == row.content_hash
    assert np.linalg.norm(found.features, axis=1) == pytest.approx(1)


def test_images_of_earlier_reviews_are_left_out(read):
    images = [(f"s3://b/{i}.jpg", b"%d" % i) for i in range(30)]
    without = {hashlib.sha256(data).hexdigest() for _, data in images[:10]}
    found = read(images, excluded=without)
    assert found.population == 20
    assert not without & {row.content_hash for row in found.rows}


def test_with_more_images_than_the_pools_hold_the_most_unsure_and_contradictory_are_found_and_the_number_is_estimated(read, monkeypatch):
    from pipeline.review import pools

    monkeypatch.setattr(pools, "RANDOM", 200)
    monkeypatch.setattr(pools, "SPREAD", 20)
    monkeypatch.setattr(pools, "UNSURE", 10)
    monkeypatch.setattr(pools, "CONTRADICTING", 10)
    images = [(f"s3://b/{i}.jpg", b"%d" % i) for i in range(1000)]
    few, complete = read(images), None
    monkeypatch.setattr(pools, "SPREAD", 2000)
    monkeypatch.setattr(pools, "RANDOM", 2000)
    complete = read(images)
    assert len(few) <= 40
    assert not few.exact
    assert few.population == pytest.approx(1000, rel=0.2)
    most = {complete.rows[i].content_hash for i in np.argsort(-complete.unsure)[:10]}
    assert most <= {row.content_hash for row in few.rows}
    assert few.contradictions.sum() >= 10
