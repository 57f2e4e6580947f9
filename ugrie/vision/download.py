"""The weights of a tower known by name, from open_clip's list: downloaded once, most of them from Hugging Face's hub."""

import logging
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from ugrie.vision.config import TowerConfig

ANSWER_SECONDS = 5.0


def fetch_weights(config: TowerConfig) -> str:
    """Return the file of a tower's weights, downloaded unless open_clip has it. Raises OSError with the remedy.

    Where the hub does not answer, only what was downloaded before is looked for: its own client would retry for a minute.
    """
    problem = _unreachable()
    from ugrie.libraries import open_clip

    logging.getLogger("huggingface_hub").handlers.clear()  # the root logger shows its lines, too
    try:
        with _offline(problem is not None):
            file = open_clip.download_pretrained(open_clip.get_pretrained_cfg(config.name, config.pretrained))
        if not file:
            raise FileNotFoundError("open_clip has no such weights")
    except Exception as error:  # open_clip and its download clients raise errors of many kinds
        raise OSError(
            f"the CLIP weights of {config.name} ({config.pretrained}) could not be fetched: {problem or error}\n"
            "Download them where there is a network and give the file as tower_weights (--tower-weights FILE), "
            "or annotate stored embeddings with annotate_embeddings."
        ) from (OSError(problem) if problem else error)
    return file


def _unreachable() -> str | None:
    """Return why the hub can't be reached, or None. A proxy is not asked."""
    from huggingface_hub import constants

    hub = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or {"https", "http", "all"} & urllib.request.getproxies().keys():
        return None
    try:
        socket.create_connection((hub.hostname, hub.port or (80 if hub.scheme == "http" else 443)), ANSWER_SECONDS).close()
    except OSError as error:
        return f"{hub.hostname} can't be reached ({error})"
    return None


@contextmanager
def _offline(is_offline: bool) -> Iterator[None]:
    """Within the context, the hub's client makes no request if `is_offline`."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE or is_offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
