"""Images of a listing that share an ID get other IDs, as from the driver."""

import pytest

from pipeline.inputs import seen
from pipeline.run.plan import prepare, tables_of
from tests.plugins.planned import check_same, commit, csv, uris
from tests.plugins.plans import manifest


@pytest.fixture
def short_ids(monkeypatch):
    """IDs of 16 bits, so that many images share one and few second IDs are taken."""
    whole = seen.hash_image

    def shortened(uri, version, salt=0):
        number, rest = divmod(int.from_bytes(whole(uri, version, salt), "little"), 2**64)[::-1]
        return (number % (2**16 if salt else 2**4)).to_bytes(8, "little") + rest.to_bytes(8, "little")

    monkeypatch.setattr(seen, "hash_image", shortened)
    monkeypatch.setattr("pipeline.planning.collisions.hash_image", shortened)


def test_images_that_share_an_id_have_the_second_ids_that_the_driver_gives_them(config, plan_here, tmp_path, short_ids, caplog):
    source = csv(tmp_path / "in")
    first = prepare(config(source, run_id="first"))
    warned = [message for message in caplog.messages if "has the image_id of another image" in message]
    assert first.manifest.rows == 11
    assert len(warned) == 2
    caplog.clear()
    check_same(first, plan_here(config(source)))
    assert sorted(message for message in caplog.messages if "has the image_id of another image" in message) == sorted(warned)
    commit(first, tmp_path, tables_of(first.config), ("ok", "missing"))
    check_same(prepare(config(source)), plan_here(config(source, run_id="again")))


def test_a_second_id_that_is_taken_is_followed_by_a_third(config, plan_here, tmp_path, monkeypatch):
    whole = seen.hash_image

    def shortened(uri, version, salt=0):
        number, rest = divmod(int.from_bytes(whole(uri, version, salt), "little"), 2**64)[::-1]
        return (number % 16).to_bytes(8, "little") + rest.to_bytes(8, "little")

    monkeypatch.setattr(seen, "hash_image", shortened)
    monkeypatch.setattr("pipeline.planning.collisions.hash_image", shortened)
    source = csv(tmp_path / "in")
    rows = manifest(plan_here(config(source)))
    assert rows["uri"].to_pylist() == uris(11)[:11]
    assert len(set(rows["image_id"].to_pylist())) == 11
