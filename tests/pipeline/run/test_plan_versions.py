"""Runs of another schema version, and of other weights of the image tower, are told apart from today's."""

import json

import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.run.plan import prepare
from tests.plugins.plans import manifest


@pytest.mark.parametrize("settings", [{}, {"reannotate": True}, {"model": "ugrie-l14"}])
def test_an_output_with_runs_of_another_schema_version_is_refused_with_what_to_do(config, commit, tmp_path, settings, monkeypatch):
    (tmp_path / "clip.safetensors").write_bytes(b"weights")
    if "model" in settings:  # whichever model the runs are of
        settings = settings | {"tower_weights": str(tmp_path / "clip.safetensors")}
    commit("old", [1, 2], "m@1", schema_version=1)
    with pytest.raises(
        UserError,
        match=r"out holds runs of schema version 1, such as old, whose image IDs are others than those of version 2: give a new --out",
    ) as error:
        prepare(config(**settings))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "_work").exists()


def test_embeddings_of_another_schema_version_are_refused_with_what_to_do(config, commit, tmp_path):
    commit("old", [1, 2], "m@1", schema_version=1, keep_embeddings=True)
    with pytest.raises(
        UserError, match=r"out holds runs of schema version 1, .* annotate the images themselves, without --from-embeddings"
    ):
        prepare(config(input=str(tmp_path / "out"), output=str(tmp_path / "new"), from_embeddings=True))
    assert not (tmp_path / "new").exists()


def test_a_run_that_was_begun_in_another_schema_version_does_not_go_on(config, tmp_path):
    prepare(config())
    path = tmp_path / "out" / "_work" / "r" / "plan.json"
    plan = json.loads(path.read_text())
    del plan["schema_version"]  # as version 1 wrote it
    path.write_text(json.dumps(plan))
    with pytest.raises(UserError, match="run r was begun by another version of UGRIE, whose image IDs are others: give another --run-id"):
        prepare(config())
    assert prepare(AnnotateConfig(**config().model_dump(exclude={"run_id"}) | {"resume": True})).config.run_id != "r"


@pytest.fixture
def named(config, tmp_path):
    """Return settings of ugrie-l14, whose tower is known by name, with a file of weights of this content."""

    def settings(content, **others):
        (tmp_path / "clip.safetensors").write_bytes(content)
        return config(model="ugrie-l14", tower_weights=str(tmp_path / "clip.safetensors"), **others)

    return settings


def test_a_run_does_not_go_on_with_other_weights_of_the_tower_under_the_same_path(named):
    before = prepare(named(b"weights"))
    assert prepare(named(b"weights")).tables.tower == before.tables.tower
    with pytest.raises(
        UserError, match=r"run r was begun with tower = [0-9a-f]{12}, not [0-9a-f]{12}: give that again, or another --run-id"
    ):
        prepare(named(b"others!"))


def test_resuming_with_other_weights_of_the_tower_begins_a_new_run(named):
    def resumed(content):
        return prepare(AnnotateConfig(**named(content).model_dump(exclude={"run_id"}) | {"resume": True})).config.run_id

    prepare(named(b"weights"))
    assert (resumed(b"weights") == "r", resumed(b"others!") == "r") == (True, False)


def test_images_are_known_only_to_a_model_with_the_same_weights_of_its_tower(named, commit):
    plan = prepare(named(b"weights"))
    ids, schemes = manifest(plan)["image_id"].to_pylist(), [scheme.name for scheme in plan.tables.schemes]
    commit("first", ids, plan.tables.model, schemes=schemes, tower=plan.tables.tower)
    assert prepare(named(b"weights", run_id="again")).manifest.known == 40
    assert prepare(named(b"others!", run_id="others")).manifest.known == 0


def test_the_weights_of_a_named_tower_are_part_of_its_identity_from_embeddings_too(named, config, tmp_path, monkeypatch):
    def fetched(tower):
        raise OSError("no network")

    monkeypatch.setattr("ugrie.vision.download.fetch_weights", fetched)
    with pytest.raises(UserError, match="no network"):
        prepare(config(model="ugrie-l14", from_embeddings=True))
