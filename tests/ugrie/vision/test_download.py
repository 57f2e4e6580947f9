"""The weights of a tower known by name are downloaded, found where they were downloaded before, or named with the remedy."""

import logging
import socket

import pytest
from huggingface_hub import constants

from ugrie.libraries import open_clip
from ugrie.vision.config import TowerConfig
from ugrie.vision.download import fetch_weights

L14 = TowerConfig(embedding_dim=768, mean=(0.5,) * 3, deviation=(0.5,) * 3, name="ViT-L-14-quickgelu", pretrained="openai")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub at an address of this machine, which answers nobody, without a proxy, and with an empty cache. Returns its server socket."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    yield server
    server.close()


def test_where_the_hub_does_not_answer_nothing_is_tried_again(hub, caplog):
    hub.close()
    with pytest.raises(OSError, match=r"ViT-L-14-quickgelu \(openai\) could not be fetched: 127.0.0.1 can't be reached .*refused"):
        fetch_weights(L14)
    assert "Retry" not in caplog.text
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("answers", [True, False])
def test_what_was_downloaded_before_needs_no_hub(hub, answers, tmp_path, monkeypatch):
    if not answers:
        hub.close()
    offline = []

    def found(weights):
        offline.append(constants.HF_HUB_OFFLINE)
        return str(tmp_path / "clip.safetensors")

    monkeypatch.setattr(open_clip, "download_pretrained", found)
    assert fetch_weights(L14) == str(tmp_path / "clip.safetensors")
    assert offline == [not answers]


def test_behind_a_proxy_the_hub_itself_is_not_asked(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("the hub was asked"))
    monkeypatch.setattr(open_clip, "download_pretrained", lambda weights: "file")
    assert fetch_weights(L14) == "file"


def test_the_hubs_own_lines_are_logged_once(hub, monkeypatch, caplog, capfd):
    def failing(weights):
        logging.getLogger("huggingface_hub.utils._http").warning("retrying in 4 s")
        return "file"

    monkeypatch.setattr(open_clip, "download_pretrained", failing)
    fetch_weights(L14)
    assert caplog.messages == ["retrying in 4 s"]
    assert "retrying" not in "".join(capfd.readouterr())


def test_weights_that_open_clip_does_not_have_are_named(hub, monkeypatch):
    with pytest.raises(OSError, match="open_clip has no such weights"):
        fetch_weights(L14.model_copy(update={"pretrained": "nobodys"}))
