"""A run is planned, and user errors are found, before any cluster work begins."""

from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.run.plan import find_committed, prepare
from pipeline.table.run_record import RunRecord
from tests.plugins.plans import write_block


def test_a_plan_has_a_manifest_of_all_images_and_all_blocks_to_do(config, corpus):
    plan = prepare(config())
    uris = [uri for block in plan.todo for uri in plan.manifest.read(plan.output, block).column("uri").to_pylist()]
    assert uris == [f"file://{path}" for path in corpus.files]
    assert (plan.manifest.rows, plan.todo.tolist()) == (40, [0, 1, 2, 3, 4])


def test_only_the_first_images_are_planned_where_a_limit_is_set(config):
    assert prepare(config(limit=3)).manifest.rows == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "ugrie-tny"}, r"there is no model 'ugrie-tny' \(did you mean 'ugrie-tiny'\?\)"),
        ({"schemes": "polarity2,valense"}, r"ugrie-tiny was not trained for 'valense' \(did you mean 'valence'\?\); it knows .*polarity2"),
        ({"schemes": "goemotions27"}, "ugrie-tiny was not trained for 'goemotions27'; it knows .*; zero-shot answers .*ugrie-l14"),
        ({"schemes": ""}, "schemes = none: a template needs at least one scheme"),
        ({"schemes": "valence,valence"}, "schemes = valence, valence: two schemes of the template have the name 'valence'"),
        ({"input": "nowhere/at/all"}, "nothing found at nowhere/at/all"),
        ({"input": "s4://bucket"}, "did you mean 's3://'"),
        ({"output": "s4://bucket"}, "did you mean 's3://'"),
        ({"precision": "fp16", "device": "cpu"}, "precision = fp16 is for GPUs, and this run is for CPUs: leave it at auto, which is fp32"),
        ({"precision": "int8"}, "precision = int8 is for transformers, and the image tower of ugrie-tiny is none: leave it at auto"),
        (
            {"precision": "int8", "device": "cuda"},
            "precision = int8 is for CPUs, and this run is for GPUs: leave it at auto, or set device to cpu",
        ),
        (
            {"precision": "int8", "gpus": 2},
            "precision = int8 is for CPUs, and this run is for GPUs: leave it at auto, or set device to cpu",
        ),
    ],
)
def test_what_a_user_got_wrong_is_said_and_nothing_is_written(config, tmp_path, settings, message):
    with pytest.raises(UserError, match=message) as error:
        prepare(config(**settings))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_is_named(config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"can't be written: .*check the path and the credentials|output can't be read"):
        prepare(config(output=str(tmp_path / "file" / "out")))


def test_an_input_that_cannot_be_read_is_not_blamed_on_the_output(config, tmp_path):
    (tmp_path / "list.csv").symlink_to(tmp_path / "list.csv")
    with pytest.raises(UserError, match=r"list\.csv") as error:
        prepare(config(input=str(tmp_path / "list.csv")))
    assert "output" not in str(error.value).replace(str(tmp_path), "")
    assert "written" not in str(error.value)


def test_a_run_that_died_goes_on_with_the_blocks_that_are_left(config):
    plan = prepare(config(date="2026-01-02"))
    for number in (0, 3):
        write_block(plan, number)
    again = prepare(config(date="2026-01-03", block_rows=1))
    assert again.todo.tolist() == [1, 2, 4]
    assert again.manifest == plan.manifest
    assert again.started_at == plan.started_at
    assert again.config.date.isoformat() == "2026-01-02"


def test_a_run_that_goes_on_has_the_manifest_it_began_with(config, corpus, tmp_path, images):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(images.jpeg(1))
    prepare(config(input=str(folder)))
    (folder / "b.jpg").write_bytes(images.jpeg(2))
    assert prepare(config(input=str(folder))).manifest.rows == 1


def test_a_run_that_died_before_its_plan_was_written_begins_again(config):
    plan = prepare(config())
    plan.output.remove("_work/r/plan.json")
    assert prepare(config(limit=7)).manifest.rows == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 3}, "run r was begun with limit = None, not 3: give that again, or another --run-id"),
        ({"schemes": "valence"}, r"run r was begun with schemes = \[.*\], not \['valence'\]"),
        ({"column": "image"}, "run r was begun with column = uri, not image"),
        ({"keep_embeddings": True}, "run r was begun with keep_embeddings = False, not True"),
        ({"input": "elsewhere"}, "run r was begun with input = .*, not elsewhere"),
    ],
)
def test_a_run_that_goes_on_must_be_asked_for_the_same(config, settings, message):
    prepare(config())
    with pytest.raises(UserError, match=message):
        prepare(config(**settings))


def test_drivers_that_begin_one_run_at_once_settle_on_one_list(config, tmp_path):
    with ThreadPoolExecutor(6) as pool:
        plans = list(pool.map(lambda _: prepare(config()), range(6)))
    assert len({(plan.manifest.folder, plan.started_at, *plan.todo.tolist()) for plan in plans}) == 1
    assert len({plan.attempt for plan in plans}) == 6
    assert len(list((tmp_path / "out" / "_work" / "r").glob("manifest-*"))) == 1
    assert plans[0].manifest.read(plans[0].output, 0).num_rows == 9


def test_resume_goes_on_with_the_newest_run_that_was_asked_for_the_same(config, caplog, commit):
    caplog.set_level("INFO")

    def resumed(**settings):
        settings = {"resume": True} | settings
        return prepare(AnnotateConfig(**config(**settings).model_dump(exclude={"run_id"}, exclude_unset=True))).config.run_id

    assert resumed() not in ("a", "b")
    assert "no unfinished run has these settings: beginning a new one" in caplog.text
    for run_id, settings in {"a": {}, "b": {}, "other": {"limit": 3}, "c": {}}.items():
        prepare(config(run_id=run_id, **settings))
    assert resumed() == "c"
    assert "resuming run c" in caplog.text
    assert resumed(limit=3) == "other"
    commit("c", [], "another model")
    assert resumed() == "b"
    assert prepare(config(run_id="mine", resume=True)).config.run_id == "mine"


def test_another_run_into_the_same_output_is_a_run_of_its_own(config):
    plan = prepare(config())
    write_block(plan, 0)
    assert prepare(config(run_id="r2", limit=3)).todo.tolist() == [0]


def test_an_input_that_is_wrong_is_found_before_earlier_runs_are_read(config, commit, tmp_path):
    commit("first", [1], "a model")
    (tmp_path / "out" / "runs" / "first.json").write_text("half a rec")
    with pytest.raises(UserError, match="nothing found at nowhere"):
        prepare(config(input="nowhere"))
    with pytest.raises(UserError, match=r"runs/first\.json is no run record"):
        prepare(config())
    assert not (tmp_path / "out" / "_work").exists()


# --- runs that are done


def test_a_run_without_a_record_is_not_committed(config):
    prepare(config())
    assert find_committed(config()) is None


def test_a_run_with_a_record_is(config, tmp_path):
    record = RunRecord(
        run_id="r",
        model="m@1",
        date="2026-01-02",
        finished_at="2026-01-02T03:00:00+00:00",
        schemes={},
        counts={},
        files=(),
        config=config().public(),
    )
    (tmp_path / "out" / "runs").mkdir(parents=True)
    (tmp_path / "out" / "runs" / "r.json").write_bytes(record.to_json())
    assert find_committed(config()) == record
    assert find_committed(config(batch_size=3, date="2020-01-01")) == record
    with pytest.raises(UserError, match="run r was begun with limit = None, not 3: give that again, or another --run-id"):
        find_committed(config(limit=3))


def test_secrets_are_in_no_file_of_a_plan(config, corpus):
    fs = fsspec.filesystem("memory")
    plan = prepare(config(output="memory://plan-test", storage_options={"secret": "hunter2"}))
    files = fs.find("/plan-test")
    assert plan.output.absolute("_work/r/plan.json") in files
    assert all(b"hunter2" not in fs.cat_file(file) for file in files)
