"""Models on the Hugging Face Hub, by its own client against a stand-in for the hub."""

import pytest

from pipeline.errors import UserError
from pipeline.stages.hub import Repository, repository
from pipeline.stages.model_files import local_folder, pinned
from pipeline.storage.retry import Policy, is_transient
from tests.plugins.hub import COMMIT, OTHER
from ugrie.model import checkpoint

BUNDLED = checkpoint.find("ugrie-tiny")
NAME = "ada/mine"


@pytest.fixture
def mine(hub):
    """A repository with the files of ugrie-tiny on its main branch and as v1."""
    hub.add(NAME, BUNDLED, v1=COMMIT)
    return hub


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("ada/mine", Repository(NAME, None, is_bare=True)),
        ("ada/mine@v1", Repository(NAME, "v1", is_bare=True)),
        ("hf://ada/mine", Repository(NAME, None, is_bare=False)),
        ("hf://ada/mine@refs/pr/1", Repository(NAME, "refs/pr/1", is_bare=False)),
        ("ugrie-tiny", None),
        ("./ada/mine", None),
        ("/ada/mine", None),
        ("ada/mine/", None),
        ("a/b/c", None),
        ("s3://ada/mine", None),
    ],
)
def test_a_model_of_two_names_is_a_repository(model, found):
    assert repository(model) == found


def test_a_folder_that_exists_is_no_repository(tmp_path, monkeypatch):
    (tmp_path / "ada" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert repository(NAME) is None
    assert repository(f"hf://{NAME}") is not None


@pytest.mark.parametrize("model", ["hf://ada", "hf://ada/mine/below", "hf://datasets/ada/mine", "hf://ada/mine@", "HF://ada/mine"])
def test_other_urls_of_the_hub_are_refused(model):
    with pytest.raises(UserError, match=f"^{model} names no model on the Hugging Face Hub: give hf://org/name or hf://org/name@revision$"):
        repository(model)


@pytest.mark.parametrize("model", [NAME, f"{NAME}@main", f"{NAME}@v1", f"hf://{NAME}", f"hf://{NAME}@v1"])
def test_a_revision_is_resolved_to_its_commit_once(mine, model):
    assert pinned(model) == f"hf://{NAME}@{COMMIT}"
    mine.add(NAME, BUNDLED, OTHER, v1=OTHER)
    assert pinned(model) == f"hf://{NAME}@{COMMIT}"


def test_a_commit_is_taken_as_it_is(mine):
    assert pinned(f"{NAME}@{COMMIT}") == f"hf://{NAME}@{COMMIT}"
    assert mine.requests == []


def test_a_model_that_is_elsewhere_is_not_changed():
    assert [pinned(model) for model in ("ugrie-tiny", "s3://b/mine", "no/such/folder")] == ["ugrie-tiny", "s3://b/mine", "no/such/folder"]


def test_only_a_checkpoints_own_files_are_fetched_and_a_cached_commit_needs_no_hub(mine, monkeypatch):
    from huggingface_hub import constants

    from pipeline.stages import model_files

    folder = local_folder(NAME, {"token": "hunter2", "endpoint": "http://elsewhere"})  # options of the input's storage
    assert checkpoint.digest(folder) == checkpoint.digest(BUNDLED)
    resolved = [path for path in mine.requests if "/resolve/" in path]
    assert resolved == [f"/{NAME}/resolve/{COMMIT}/{file}" for file in checkpoint.FILES]
    model_files._once.cache_clear()  # as in another process
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert local_folder(f"hf://{NAME}@{COMMIT}", {}) == folder


def test_a_gated_model_is_fetched_with_the_token(mine, monkeypatch):
    mine.gated, mine.token = {NAME}, "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert checkpoint.digest(local_folder(NAME, {})) == checkpoint.digest(BUNDLED)


# --- what fails

WAY_AROUND = f"download it where there is a network (hf download {NAME} --local-dir DIR), and give that folder as --model"


def refusal(model):
    with pytest.raises(UserError) as refused:
        local_folder(model, {})
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.fixture
def host(hub):
    return hub.endpoint.removeprefix("http://")


def test_a_name_that_may_be_a_path_is_read_both_ways(mine, host, tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert refusal("checkpoints/mien") == (
        f"there is no folder checkpoints/mien here (did you mean 'checkpoints/mine'?), and no repository checkpoints/mien on {host}: "
        "check the name; a private one needs your token as HF_TOKEN, on every worker too"
    )
    assert refusal("hf://ada/yours").startswith(f"there is no repository ada/yours on {host}: check the name")


def test_a_revision_that_is_not_there_is_named_with_the_closest(mine, host):
    message = f"{NAME} on {host} has no revision 'mian' (did you mean 'main'?): give a branch, a tag or a commit"
    assert refusal(f"{NAME}@mian") == message
    assert f"has no revision '{OTHER}'" in refusal(f"{NAME}@{OTHER}")


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_gated_model_says_where_to_ask(mine, host, monkeypatch, token):
    mine.gated, mine.token = {NAME}, "hf_right"
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    message = f"{NAME} on {host} is gated: ask for access at {mine.endpoint}/{NAME}, and give your token as HF_TOKEN, on every worker too"
    assert refusal(NAME) == message


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_without_the_right_is_named(mine, host, monkeypatch, status):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    monkeypatch.setattr(mine, "answer", lambda path, token: (status, "Other", b""))
    if status == 401:  # otherwise the client takes it for a repository that is not there
        mine.message = "Invalid credentials in Authorization header"
    assert refusal(NAME).startswith(f"{host} refuses access to {NAME} ({status}): check the token in HF_TOKEN")
    assert len([path for path in mine.requests if path.startswith("/api/models/")]) == 1


def test_without_a_network_the_way_around_is_named(mine, host, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr("pipeline.stages.hub.ASK", Policy(seconds=1, attempts=1))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    message = refusal(NAME)
    problem = f"the repository {NAME} can't be fetched, since 127.0.0.1:9 can't be reached ("
    assert message.startswith(f"there is no folder {NAME} here, and {problem}")
    assert message.endswith(f"): {WAY_AROUND}")
    assert refusal(f"hf://{NAME}").startswith(problem)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "can't be reached (HF_HUB_OFFLINE is set)" in refusal(f"hf://{NAME}")


def test_a_repository_of_another_kind_says_what_it_lacks(mine, host, tmp_path):
    (tmp_path / "README.md").write_text("a model")
    mine.add("ada/gpt", tmp_path)
    assert refusal("ada/gpt") == f"ada/gpt on {host} is not a UGRIE checkpoint: it lacks config.json, model.safetensors, tokenizer.json"


def test_a_busy_hub_is_asked_again(mine, monkeypatch):
    answers = iter([(503, None, b"")])
    answer = mine.answer
    monkeypatch.setattr(mine, "answer", lambda *asked: next(answers, None) or answer(*asked))
    assert pinned(NAME) == f"hf://{NAME}@{COMMIT}"


def test_a_hub_that_cannot_be_reached_is_asked_again():
    from huggingface_hub import HfApi

    with pytest.raises(Exception, match="refused") as unreachable:
        HfApi(endpoint="http://127.0.0.1:9").model_info(NAME)
    assert is_transient(unreachable.value)


def test_a_cache_that_can_not_be_used_is_no_error_of_the_hub(mine, monkeypatch, tmp_path):
    (tmp_path / "models").mkdir(mode=0o777)
    (tmp_path / "models").chmod(0o777)
    monkeypatch.setenv("UGRIE_CACHE", str(tmp_path))
    assert refusal(NAME).startswith(f"models can't be cached in {tmp_path}/models: other users may enter it; remove it, or set UGRIE_CACHE")


def test_an_answer_that_is_none_is_named(mine, host, monkeypatch):
    monkeypatch.setattr(mine, "answer", lambda path, token: (200, None, b"<html>"))
    assert refusal(NAME).startswith(f"{NAME} on {host} can't be read: ")
