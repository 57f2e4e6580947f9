"""Starts and stops server processes for tests and benchmarks, each by its own process id."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


def free_ports(count: int) -> list[int]:
    """Return TCP ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for(name: str, ready: Callable[[], bool], process: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    """Wait until `ready()` is true. Raises RuntimeError with the end of the log if the process ends or the time is up."""
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{name} did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.2)


def stop_tree(process: subprocess.Popen, seconds: float = 5) -> None:
    """Stop a process that we started and all its children, each by its own id: SIGTERM, after these seconds SIGKILL."""
    try:
        ours = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        ours = []
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(ours, timeout=seconds)
    for left in alive:
        with suppress(psutil.NoSuchProcess):  # it may end at this moment
            left.kill()
    psutil.wait_procs(alive, timeout=10)
    process.wait(10)


def script(name: str) -> str:
    """Return the path of a command of this environment."""
    return str(Path(sysconfig.get_path("scripts")) / name)


@contextmanager
def ray_token() -> Iterator[None]:
    """Give Ray a token of its own instead of the user's, and turn usage statistics off. Ray reads these when it is imported."""
    folder = tempfile.mkdtemp(prefix="ugrie-ray-")
    token = Path(folder) / "token"
    token.write_text(secrets.token_hex(16))
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), RAY_USAGE_STATS_ENABLED="0")
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
