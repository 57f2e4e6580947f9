"""Hooks at the end of a run: a command, or a URL that gets a POST, as set by `on_success` and `on_failure`.

Both get the same JSON: how the run ended, and the main parts of its record. Delivery is at least once: the same command for a run
that is already committed calls the hook again. SIGTERM calls no hook: whoever stops a run knows that, and leaves no time for it.
"""

import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

import tenacity

from pipeline import logs
from pipeline.config import AnnotateConfig
from pipeline.errors import RunError, UserError
from pipeline.run.summary import summary
from pipeline.storage.uris import scrub
from pipeline.table.run_record import RunRecord
from ugrie.text import one_line

logger = logging.getLogger(__name__)
TIMEOUT_SECONDS = 30.0  # of each attempt, all of it
BUSY = (408, 425, 429)  # answers after which another attempt may succeed, besides 5xx
ATTEMPTS = 3
WAIT = tenacity.wait_exponential(multiplier=1, max=10)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
OUTPUT_CHARACTERS = 2000  # of a failed command's output, its last


class HookError(RuntimeError):
    """A failed attempt. The message is one line without the URL's path and the command's arguments, which may be secret."""

    def __init__(self, message: str, is_final: bool = False):
        super().__init__(message)
        self.is_final = is_final  # another attempt would fail as well


@dataclass(frozen=True)
class Hook:
    """The command or URL (`target`) of the setting `on_success` or `on_failure`."""

    setting: str
    target: str = field(repr=False)

    @classmethod
    def of(cls, config: AnnotateConfig, setting: str) -> "Hook | None":
        """Return the hook of a setting, or None if it is not set. Raises UserError where the hook can't work."""
        target = getattr(config, setting)
        if target is None:
            return None
        hook = cls(setting, target)
        if hook.is_url:
            hook._check_url()
        else:
            hook._check_command()
        return hook

    @property
    def is_url(self) -> bool:
        return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", self.target))  # a command may have a URL among its arguments

    def notify(self, payload: dict[str, Any]) -> None:
        """Call the hook, with up to three attempts and a deadline for each. A failure is logged as a warning and changes nothing else."""
        may_pass = tenacity.retry_if_exception(lambda error: not getattr(error, "is_final", False))
        retrying = tenacity.Retrying(retry=may_pass, stop=tenacity.stop_after_attempt(ATTEMPTS), wait=WAIT, reraise=True)
        try:
            retrying(self._post if self.is_url else self._run, payload)
            logger.info("%s was notified", self.setting)
        except Exception as error:
            reason = str(error) if isinstance(error, HookError) else type(error).__name__
            attempts = retrying.statistics["attempt_number"]
            logger.warning("%s failed, after %d attempt%s: %s", self.setting, attempts, "s"[attempts == 1 :], one_line(scrub(reason, {})))

    def _check_url(self) -> None:
        try:
            parts = urlsplit(self.target)
            valid = bool(parts.hostname) and parts.port != 0 and re.fullmatch(r"[!-~]+", self.target)
        except ValueError:
            valid = False
        if not valid:
            raise UserError(f"{self.setting} is not a valid URL: give https://host/path, or a command")
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise UserError(f"{self.setting} is a URL of {parts.scheme}://: give an https:// URL (http:// is for this machine only)")

    def _check_command(self) -> None:
        try:
            words = shlex.split(self.target)
        except ValueError as error:
            raise UserError(f"{self.setting} is not a valid command: {error}") from None
        if not words:
            raise UserError(f"{self.setting} is empty: give a command, or an https:// URL")
        if shutil.which(words[0]) is None:
            name = "" if "/" in words[0] and ":" in words[0] else f" {words[0]}"  # a mistyped URL may be secret
            raise UserError(f"{self.setting}: the command{name} is not found or not executable: give its path, or an https:// URL")

    def _post(self, payload: dict[str, Any]) -> None:
        data = json.dumps(payload | {"text": payload["message"]}).encode()  # chats' incoming webhooks show `text`
        request = urllib.request.Request(self.target, data, {"Content-Type": "application/json", "User-Agent": "ugrie"})
        server = "{0.scheme}://{0.hostname}".format(urlsplit(self.target))
        try:
            _within(TIMEOUT_SECONDS, lambda: urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT_SECONDS).close())
        except urllib.error.HTTPError as error:
            error.close()
            is_final = error.code < 500 and error.code not in BUSY
            raise HookError(f"{server} answered {error.code} {error.reason}", is_final) from None
        except OSError as error:  # URLError and timeouts, too
            raise HookError(f"{server}: {getattr(error, 'reason', None) or error}") from None

    def _run(self, payload: dict[str, Any]) -> None:
        words = shlex.split(self.target)
        variables = {f"UGRIE_{name.upper()}": str(payload[name] or "") for name in ("record", "run_id", "status", "message")}
        with TemporaryFile() as stdin, TemporaryFile() as output:  # a pipe would block a command that does not read
            stdin.write(json.dumps(payload).encode())
            stdin.seek(0)
            try:
                command = subprocess.Popen(
                    words, stdin=stdin, stdout=output, stderr=subprocess.STDOUT, env=os.environ | variables, start_new_session=True
                )
            except OSError as error:
                raise HookError(f"{words[0]}: {error.strerror}") from None
            try:
                code = command.wait(TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                raise HookError(f"{words[0]} took longer than {TIMEOUT_SECONDS:g} s") from None
            finally:
                if command.poll() is None:
                    os.killpg(command.pid, signal.SIGKILL)  # with all processes that it started
                    command.wait()
            if code:
                output.seek(max(0, output.seek(0, os.SEEK_END) - OUTPUT_CHARACTERS))
                raise HookError(f"{words[0]} exited with {code}: {output.read().decode(errors='replace').strip() or 'no output'}")


def _within(seconds: float, action: Callable[[], None]) -> None:
    """Do something that may block, and wait no longer than this: a socket's timeout is that of a single operation. Raises TimeoutError."""
    done: Future[None] = Future()

    def work() -> None:
        try:
            action()
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=work, name="hook", daemon=True).start()  # at the end of the process it is not waited for
    try:
        done.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} s") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Treat a redirect as a failure: followed, the POST would arrive as a GET without its JSON."""

    def redirect_request(self, *_: Any) -> None:
        return None


def with_hooks(config: AnnotateConfig, work: Callable[[AnnotateConfig], RunRecord]) -> RunRecord:
    """Do the work, which returns a run's record, and call the hook for its end. An exception is reported to the hook and raised."""
    on_failure = Hook.of(config, "on_failure")
    try:
        on_success = Hook.of(config, "on_success")
        record = work(config)
    except Exception as error:
        if on_failure is not None:
            on_failure.notify(failure_payload(config, error))
        raise
    if on_success is not None:
        on_success.notify(success_payload(config, record))
    return record


def success_payload(config: AnnotateConfig, record: RunRecord) -> dict[str, Any]:
    """Return the payload for a committed run."""
    output = _output(config)
    first_line = summary(record, output).partition("\n")[0]
    kept = {"model", "date", "started_at", "finished_at", "input", "counts", "timings"}
    payload = _payload(record.run_id, "succeeded", 0, f"run {record.run_id} is committed: {first_line}")
    return payload | {"output": output, "record": f"{output}/runs/{record.run_id}.json"} | record.model_dump(mode="json", include=kept)


def failure_payload(config: AnnotateConfig, error: Exception) -> dict[str, Any]:
    """Return the payload for a run that ended without a commit."""
    refused = isinstance(error, UserError)
    known = str(error) if isinstance(error, UserError | RunError) else f"{type(error).__name__}: {error}"
    message = one_line(scrub(known, config.storage_options))
    payload = _payload(logs.run_id() or config.run_id, "refused" if refused else "failed", 2 if refused else 1, message)
    public = config.public()
    return payload | {"output": _output(config), "record": None} | {name: public[name] for name in ("model", "date", "input")}


def _payload(run_id: str, status: str, exit_code: int, message: str) -> dict[str, Any]:
    return {"run_id": run_id, "status": status, "exit_code": exit_code, "message": message}


def _output(config: AnnotateConfig) -> str:
    return config.public()["output"].rstrip("/")
