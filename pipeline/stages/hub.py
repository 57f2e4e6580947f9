"""Models on the Hugging Face Hub, given as `org/name`, `hf://org/name` or either with `@revision`.

A revision is resolved to its commit once, in the driver: so all workers of a run read the same files, and the run's record states which.
Credentials are those of Hugging Face's own client: HF_TOKEN, or its login. HF_ENDPOINT names another hub.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import UserError
from pipeline.storage.retry import Policy, find_cause, http_status, transient_errors
from pipeline.storage.uris import public_message
from ugrie.model.checkpoint import FILES
from ugrie.text import did_you_mean

ASK = Policy(seconds=30, attempts=4)
_GIVEN = re.compile(r"(hf://)?(\w[\w.-]*/[\w.-]+)(?:@(\S+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A repository as the user gave it. `is_bare`: without hf://, so that it may be meant as a local folder, too."""

    name: str
    revision: str | None
    is_bare: bool

    @property
    def pinned(self) -> str | None:
        """The URL of the commit, or None if the revision is not known to be one."""
        is_commit = self.revision is not None and _COMMIT.fullmatch(self.revision)
        return f"hf://{self.name}@{self.revision}" if is_commit else None


def repository(model: str) -> Repository | None:
    """Return the repository that a model is given as, or None. An existing path is none. Raises UserError for another hf:// URL."""
    match = _GIVEN.fullmatch(model)
    if match is None:
        if model.lower().startswith("hf://"):
            raise UserError(f"{model} names no model on the Hugging Face Hub: give hf://org/name or hf://org/name@revision")
        return None
    scheme, name, revision = match.groups()
    return None if scheme is None and os.path.lexists(model) else Repository(name, revision, is_bare=scheme is None)


@cache
def pin(asked: Repository) -> str:
    """Return the URL of the commit that the revision is now, by default that of the main branch. Raises UserError.

    The hub is asked once in a process, and never for a commit: a commit that is in the cache needs no network.
    """
    if asked.pinned is not None:
        return asked.pinned
    from huggingface_hub import HfApi

    try:
        found = ASK.run(lambda seconds: HfApi().model_info(asked.name, revision=asked.revision, timeout=seconds))
    except Exception as error:  # the client raises errors of several libraries
        raise (explained(error, asked) or UserError(f"{asked.name} on {_host()} can't be read: {public_message(error, {})}")) from None
    missing = set(FILES) - {file.rfilename for file in found.siblings or ()}
    if missing:
        raise UserError(f"{asked.name} on {_host()} is not a UGRIE checkpoint: it lacks {', '.join(sorted(missing))}")
    return f"hf://{asked.name}@{found.sha}"


def explained(error: BaseException | None, asked: Repository) -> UserError | None:
    """Return an error of the hub's client as one line with the remedy, or None if it is of another kind."""
    if not isinstance(error, Exception):
        return None
    from huggingface_hub import constants, errors

    name, hub = asked.name, _host()
    no_folder = f"there is no folder {name} here{_similar_folder(name)}, and " if asked.is_bare else ""
    if find_cause(error, errors.GatedRepoError) is not None:
        access = f"ask for access at {constants.ENDPOINT}/{name}, and give your token as HF_TOKEN, on every worker too"
        return UserError(f"{name} on {hub} is gated: {access}")
    if find_cause(error, errors.RepositoryNotFoundError) is not None:
        remedy = "check the name; a private one needs your token as HF_TOKEN, on every worker too"
        return UserError(f"{no_folder or 'there is '}no repository {name} on {hub}: {remedy}")
    if find_cause(error, errors.RevisionNotFoundError) is not None:
        return UserError(f"{name} on {hub} has no revision '{asked.revision}'{_similar_revision(asked)}: give a branch, a tag or a commit")
    if (status := http_status(error)) in (401, 403):
        return UserError(f"{hub} refuses access to {name} ({status}): check the token in HF_TOKEN, and its right to read this repository")
    if isinstance(error, (ConnectionError, TimeoutError, *transient_errors())):
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else public_message(error, {})
        remedy = f"download it where there is a network (hf download {name} --local-dir DIR), and give that folder as --model"
        return UserError(f"{no_folder}the repository {name} can't be fetched, since {hub} can't be reached ({reason}): {remedy}")
    return None


def _host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc


def _similar_folder(name: str) -> str:
    """Suggest the existing folder whose path is like a repository's name."""
    parent = Path(name).parent
    with suppress(OSError):
        return did_you_mean(name, [f"{parent}/{path.name}" for path in parent.iterdir() if path.is_dir()])
    return ""


def _similar_revision(asked: Repository) -> str:
    from huggingface_hub import HfApi

    with suppress(Exception):  # only a suggestion
        refs = HfApi().list_repo_refs(asked.name)
        return did_you_mean(str(asked.revision), [ref.name for ref in (*refs.branches, *refs.tags)])
    return ""
