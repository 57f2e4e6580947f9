"""Hooks at the end of a run."""

import json
import shlex
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import psutil
import pytest
import tenacity

from pipeline import logs
from pipeline.config import AnnotateConfig
from pipeline.errors import RunError, UserError
from pipeline.run import hooks
from pipeline.run.hooks import Hook, with_hooks
from pipeline.table.run_record import RunRecord

RECORD = {
    "run_id": "r",
    "model": "m@1",
    "date": "2026-01-02",
    "started_at": "2026-01-02T00:00:00+00:00",
    "finished_at": "2026-01-02T01:00:00+00:00",
    "input": "in",
    "schemes": {},
    "counts": {
        "listed": 40,
        "known": 40,
        "overtaken": 0,
        "suppressed": 0,
        "erased": 0,
        "left_out": {},
        "rows": 0,
        "status": {},
        "retried": {},
        "reposts": {"run": 0, "earlier": 0},
        "labels": {},
        "sums": {},
    },
    "files": [],
    "timings": {"plan_seconds": 1.5},
    "config": {"device": "cpu"},
}
SAID = "run r is committed: nothing new: 40 images listed, all annotated before by m@1, run r"
PROGRAM = """
import json, os, pathlib, sys
told = {"stdin": json.load(sys.stdin), "arguments": sys.argv[2:]}
told |= {name: os.environ[name] for name in os.environ if name.startswith("UGRIE_")}
with open(sys.argv[1], "a") as file:
    print(json.dumps(told), file=file)
"""


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(hooks, "WAIT", tenacity.wait_none())
    monkeypatch.setattr(logs.FORMATTER, "static_fields", {})


@pytest.fixture
def told(tmp_path):
    """A command that records its calls, and these records."""
    program, notes = tmp_path / "hook.py", tmp_path / "notes"
    program.write_text(PROGRAM)
    command = shlex.join([sys.executable, str(program), str(notes), "with a space; echo $HOME"])
    return SimpleNamespace(
        command=command, notes=lambda: [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    )


@pytest.fixture
def address():
    """A URL of this machine with the given answers, and the requests it got."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Content-Type"], json.loads(body)))
            code = answers.pop(0) if answers else 200
            self.send_response(code)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_):
            pass

    got, answers = [], []
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}/services/hunter2", got=got, answers=answers)
    server.shutdown()
    server.server_close()
    thread.join()


def config(**settings):
    return AnnotateConfig(**{"input": "in", "output": "s3://me:hunter2@bucket/out/", "run_id": "mine", "date": "2026-01-02"} | settings)


def done(_):
    return RunRecord.model_validate(RECORD)


def raises(error):
    def work(_):
        raise error

    return work


# --- payloads


def test_a_command_is_told_of_a_success(told):
    assert with_hooks(config(on_success=told.command), done) == done(None)
    (note,) = told.notes()
    assert note["arguments"] == ["with a space; echo $HOME"], "there is no shell"
    assert (note["UGRIE_RUN_ID"], note["UGRIE_STATUS"], note["UGRIE_MESSAGE"]) == ("r", "succeeded", SAID)
    assert note["UGRIE_RECORD"] == "s3://bucket/out/runs/r.json"
    kept = {key: RECORD[key] for key in ("model", "date", "started_at", "finished_at", "input", "counts", "timings")}
    about = {
        "run_id": "r",
        "status": "succeeded",
        "exit_code": 0,
        "message": SAID,
        "output": "s3://bucket/out",
        "record": note["UGRIE_RECORD"],
    }
    assert note["stdin"] == about | kept


def test_an_address_gets_a_post_with_a_text_that_chats_show(address):
    with_hooks(config(on_success=address.url), done)
    ((path, kind, about),) = address.got
    assert (path, kind) == ("/services/hunter2", "application/json")
    assert about["text"] == about["message"] == SAID


@pytest.mark.parametrize(
    ("error", "status", "exit_code", "message"),
    [
        (RunError("run mine stopped: 9 of 9 images failed"), "failed", 1, "run mine stopped: 9 of 9 images failed"),
        (UserError("nothing found at in"), "refused", 2, "nothing found at in"),
        (KeyError("x"), "failed", 1, "KeyError: 'x'"),
    ],
)
def test_a_failure_is_told_with_its_exit_code_and_raised(told, error, status, exit_code, message):
    with pytest.raises(type(error)):
        with_hooks(config(on_failure=told.command, on_success="true"), raises(error))
    (note,) = told.notes()
    about = note["stdin"]
    assert (about["status"], about["exit_code"], about["message"], about["record"]) == (status, exit_code, message, None)
    assert (about["run_id"], about["date"], about["model"], about["output"]) == ("mine", "2026-01-02", "ugrie-tiny", "s3://bucket/out")
    assert note["UGRIE_RECORD"] == ""


def test_a_run_that_was_gone_on_with_is_named_by_its_own_id(told):
    logs.set_run_id("of-yesterday")
    with pytest.raises(RunError):
        with_hooks(config(on_failure=told.command), raises(RunError("stopped")))
    assert told.notes()[0]["UGRIE_RUN_ID"] == "of-yesterday"


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt()])
def test_nobody_is_told_of_a_run_that_was_told_to_stop(told, error):
    with pytest.raises(type(error)):
        with_hooks(config(on_failure=told.command, on_success=told.command), raises(error))
    assert told.notes() == []


def test_each_hook_is_told_of_its_own_kind_of_end_only(told):
    with_hooks(config(on_failure=told.command), done)
    with pytest.raises(RunError):
        with_hooks(config(on_success=told.command), raises(RunError("stopped")))
    assert told.notes() == []


def test_no_secret_is_told(told):
    settings = {"input": "https://me:hunter2@host.org/x?sig=hunter2", "storage_options": {"secret": "hunter2-of-options"}}
    with pytest.raises(UserError):
        with_hooks(config(on_failure=told.command, **settings), raises(UserError("the store says: hunter2-of-options is wrong")))
    assert "hunter2" not in json.dumps(told.notes()[0]["stdin"])


# --- hooks that fail


def test_a_command_that_fails_is_tried_three_times_and_hurts_nothing(tmp_path, caplog):
    command = shlex.join(["sh", "-c", f"echo tried >> {tmp_path}/tries; echo token=hunter2 the door is shut >&2; exit 3"])
    assert with_hooks(config(on_success=command), done) == done(None)
    assert (tmp_path / "tries").read_text() == "tried\n" * 3
    assert "on_success failed, after 3 attempts: sh exited with 3: token=… the door is shut" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_address_that_fails_twice_is_told_at_the_third_try(address, caplog):
    address.answers += [500, 429]
    with_hooks(config(on_success=address.url), done)
    assert len(address.got) == 3
    assert not [entry for entry in caplog.records if entry.levelname == "WARNING"]


@pytest.mark.parametrize(("code", "attempts"), [(404, "1 attempt"), (302, "1 attempt"), (307, "1 attempt"), (408, "3 attempts")])
def test_an_address_that_refuses_or_leads_elsewhere_is_a_warning_without_its_secret_path(address, caplog, code, attempts):
    """What another attempt can't change is not tried again."""
    address.answers += [code] * 3
    assert with_hooks(config(on_success=address.url), done) == done(None)
    assert f"on_success failed, after {attempts}: http://127.0.0.1 answered {code}" in caplog.text
    assert "hunter2" not in caplog.text
    assert [path for path, _, _ in address.got] == ["/services/hunter2"] * int(attempts[0])


def test_an_address_that_answers_bit_by_bit_is_given_up_in_time(monkeypatch, caplog):
    """Each operation of its socket is within the timeout, and their sum is not."""
    asked, ended = [], threading.Event()
    monkeypatch.setattr(hooks, "TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(hooks, "ATTEMPTS", 1)
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", lambda *_, timeout: asked.append(timeout) or ended.wait(60))
    try:
        with_hooks(config(on_success="https://chat.org/hunter2"), done)
        assert "on_success failed, after 1 attempt: https://chat.org: no answer within 0.01 s" in caplog.text
        assert asked == [0.01]
    finally:
        ended.set()


def test_an_address_where_nobody_is_is_a_warning(caplog):
    with_hooks(config(on_success="http://127.0.0.1:9/services/hunter2"), done)
    assert "http://127.0.0.1: " in caplog.text
    assert "hunter2" not in caplog.text


def test_a_failure_is_raised_though_its_hook_fails(caplog):
    with pytest.raises(RunError, match="stopped"):
        with_hooks(config(on_failure="false"), raises(RunError("stopped")))
    assert "on_failure failed, after 3 attempts: false exited with 1: no output" in caplog.text


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(hooks, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(hooks, "ATTEMPTS", 1)
    command = shlex.join(["sh", "-c", f"sleep 600 & echo $! > {tmp_path}/child; wait"])
    with_hooks(config(on_success=command), done)
    assert "sh took longer than 0.3 s" in caplog.text
    child = int((tmp_path / "child").read_text())
    end = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(0.01)
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


# --- hooks that can't work


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("", "on_success is empty: give a command, or an https:// URL"),
        ("   ", "on_success is empty: .*"),
        ("no-such-command --now", "on_success: the command no-such-command is not found or not executable: give its path, .*"),
        ("./gone.sh", r"on_success: the command \./gone\.sh is not found.*"),
        ("notify 'it", "on_success is not a valid command: No closing quotation"),
        ("https:/chat.org/hunter2", "on_success: the command is not found or not executable.*"),
        ("https:///hunter2", "on_success is not a valid URL: give https://host/path, or a command"),
        ("https://chat.org:port/hunter2", "on_success is not a valid URL: .*"),
        ("https://[::/hunter2", "on_success is not a valid URL: .*"),
        ("https://chat.org/hunter2 now", "on_success is not a valid URL: .*"),
        ("https://chat.org/hünter2", "on_success is not a valid URL: .*"),
        ("http://chat.org/hunter2", "on_success is a URL of http://: give an https:// URL .*"),
        ("s3://bucket/hunter2", "on_success is a URL of s3://: give an https:// URL .*"),
    ],
)
def test_a_hook_that_can_not_be_told_is_found_before_any_work(target, problem):
    with pytest.raises(UserError, match=f"^{problem}$") as refused:
        with_hooks(config(on_success=target), lambda _: pytest.fail("the work was begun"))
    assert "hunter2" not in str(refused.value)


def test_that_one_hook_is_wrong_is_told_to_the_other(told):
    with pytest.raises(UserError):
        with_hooks(config(on_failure=told.command, on_success="no-such-command"), done)
    assert told.notes()[0]["UGRIE_STATUS"] == "refused"


@pytest.mark.parametrize(
    "target", ["https://chat.org/services/x", "http://localhost:8080/x", "http://[::1]/x", "true", "sh -c 'exit 0' https://chat.org/"]
)
def test_these_can_be_told(target):
    assert Hook.of(config(on_failure=target), "on_failure").is_url == (target.partition(":")[0] in ("http", "https"))


def test_a_hook_is_shown_and_recorded_nowhere():
    both = config(on_success="https://chat.org/hunter2", on_failure="notify --token hunter2")
    assert "hunter2" not in repr(Hook.of(config(on_success="https://chat.org/hunter2"), "on_success"))
    assert "on_" not in str(both.public()) + repr(both)
