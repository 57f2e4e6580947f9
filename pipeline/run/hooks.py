"""Who is told of a run's end: a command, or a web address that gets a POST, as `on_success` and `on_failure` name them.

Both get the same JSON: how the run ended, and what its record says. A hook is told at least once of what it is for: the same command for
a run that is done already tells it again. SIGTERM tells nobody: who stops a run knows, and has no time for it.
"""

import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

import tenacity

from pipeline import logs
from pipeline.config import AnnotateConfig
from pipeline.errors import RunError, UserError
from pipeline.run.summary import summary
from pipeline.storage.uris import scrubbed
from pipeline.table.run_record import RunRecord
from ugrie.text import one_line

logger = logging.getLogger(__name__)
SECONDS = 30.0  # of each try
TRIES = 3
WAIT = tenacity.wait_exponential(multiplier=1, max=10)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LAST_CHARACTERS = 2000  # of what a command said


class HookError(RuntimeError):
    """A try that failed. The message is one line without the address's path or the command's arguments, which may be secret."""


@dataclass(frozen=True)
class Hook:
    """A command or an address, as the setting of this name gives it."""

    setting: str
    target: str = field(repr=False)

    @classmethod
    def of(cls, config: AnnotateConfig, setting: str) -> "Hook | None":
        """The hook that a setting names, if it does. Raises UserError where that can't be told anything."""
        target = getattr(config, setting)
        if target is None:
            return None
        hook = cls(setting, target)
        if hook.is_address:
            hook._check_address()
        else:
            hook._check_command()
        return hook

    @property
    def is_address(self) -> bool:
        return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", self.target))  # a command may have one among its arguments

    def tell(self, about: dict[str, Any]) -> None:
        """Tries three times, with a time limit for each. That it can't be told is a warning, and nothing else."""
        try:
            again = tenacity.Retrying(stop=tenacity.stop_after_attempt(TRIES), wait=WAIT, reraise=True)
            again(self._post if self.is_address else self._run, about)
            logger.info("%s was told", self.setting)
        except Exception as error:
            why = str(error) if isinstance(error, HookError) else type(error).__name__
            logger.warning("%s could not be told, after %d tries: %s", self.setting, TRIES, one_line(scrubbed(why, {})))

    def _check_address(self) -> None:
        try:
            parts = urlsplit(self.target)
            valid = bool(parts.hostname) and parts.port != 0 and re.fullmatch(r"[!-~]+", self.target)
        except ValueError:
            valid = False
        if not valid:
            raise UserError(f"{self.setting} is no valid address: give https://host/path, or a command")
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise UserError(f"{self.setting} is an address of {parts.scheme}://: give one of https:// (http:// is for this machine alone)")

    def _check_command(self) -> None:
        try:
            words = shlex.split(self.target)
        except ValueError as error:
            raise UserError(f"{self.setting} is no command: {error}") from None
        if not words:
            raise UserError(f"{self.setting} is empty: give a command, or an address of https://")
        if shutil.which(words[0]) is None:
            named = "" if "/" in words[0] and ":" in words[0] else f" {words[0]}"  # an address that was mistyped may be secret
            raise UserError(f"{self.setting}: the command{named} is not there, or may not be run: give its path, or an address of https://")

    def _post(self, about: dict[str, Any]) -> None:
        data = json.dumps(about | {"text": about["message"]}).encode()  # which is what chats' incoming webhooks show
        request = urllib.request.Request(self.target, data, {"Content-Type": "application/json", "User-Agent": "ugrie"})
        where = "{0.scheme}://{0.hostname}".format(urlsplit(self.target))
        try:
            urllib.request.build_opener(_NoRedirects).open(request, timeout=SECONDS).close()
        except urllib.error.HTTPError as error:
            error.close()
            raise HookError(f"{where} answers {error.code} {error.reason}") from None
        except OSError as error:  # as URLError and timeouts are
            raise HookError(f"{where}: {getattr(error, 'reason', None) or error}") from None

    def _run(self, about: dict[str, Any]) -> None:
        words = shlex.split(self.target)
        told = {f"UGRIE_{name.upper()}": str(about[name] or "") for name in ("record", "run_id", "status", "message")}
        with TemporaryFile() as given, TemporaryFile() as said:  # no pipes, which a command that does not read would block
            given.write(json.dumps(about).encode())
            given.seek(0)
            try:
                command = subprocess.Popen(
                    words, stdin=given, stdout=said, stderr=subprocess.STDOUT, env=os.environ | told, start_new_session=True
                )
            except OSError as error:
                raise HookError(f"{words[0]}: {error.strerror}") from None
            try:
                code = command.wait(SECONDS)
            except subprocess.TimeoutExpired:
                raise HookError(f"{words[0]} took longer than {SECONDS:g} s") from None
            finally:
                if command.poll() is None:
                    os.killpg(command.pid, signal.SIGKILL)  # and what it started
                    command.wait()
            if code:
                said.seek(max(0, said.seek(0, os.SEEK_END) - LAST_CHARACTERS))
                raise HookError(f"{words[0]} exits with {code}: {said.read().decode(errors='replace').strip() or 'it says nothing'}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other that is no success: a POST would arrive as a GET without its JSON."""

    def redirect_request(self, *_: Any) -> None:
        return None


def with_hooks(config: AnnotateConfig, work: Callable[[AnnotateConfig], RunRecord]) -> RunRecord:
    """Does the work, which returns a run's record, and tells of its end. What it raises is told of and raised."""
    on_failure = Hook.of(config, "on_failure")
    try:
        on_success = Hook.of(config, "on_success")
        record = work(config)
    except Exception as error:
        if on_failure is not None:
            on_failure.tell(failure(config, error))
        raise
    if on_success is not None:
        on_success.tell(success(config, record))
    return record


def success(config: AnnotateConfig, record: RunRecord) -> dict[str, Any]:
    """What a hook is told of a run that is committed."""
    output = _output(config)
    said = summary(record, output).partition("\n")[0]
    kept = {"model", "date", "started_at", "finished_at", "input", "counts", "timings"}
    about = _about(record.run_id, "succeeded", 0, f"run {record.run_id} is committed: {said}")
    return about | {"output": output, "record": f"{output}/runs/{record.run_id}.json"} | record.model_dump(mode="json", include=kept)


def failure(config: AnnotateConfig, error: Exception) -> dict[str, Any]:
    """What a hook is told of a run that ended without being committed."""
    wrong = isinstance(error, UserError)
    known = str(error) if isinstance(error, UserError | RunError) else f"{type(error).__name__}: {error}"
    message = one_line(scrubbed(known, config.storage_options))
    about = _about(logs.run_id() or config.run_id, "refused" if wrong else "failed", 2 if wrong else 1, message)
    public = config.public()
    return about | {"output": _output(config), "record": None} | {name: public[name] for name in ("model", "date", "input")}


def _about(run_id: str, status: str, exit_code: int, message: str) -> dict[str, Any]:
    return {"run_id": run_id, "status": status, "exit_code": exit_code, "message": message}


def _output(config: AnnotateConfig) -> str:
    return config.public()["output"].rstrip("/")
