"""Processes that tests start, and stop by their own ids."""

import importlib
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for(what: str, ready: Callable[[], bool], process: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            pytest.fail(f"{what} did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.2)


def stop_tree(process: subprocess.Popen) -> None:
    """Stops a process of ours and all it started, each by its own id."""
    importlib.import_module("ray")  # it carries psutil
    import psutil

    try:
        ours = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        ours = []
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(ours, timeout=20)
    for left in alive:
        left.kill()
    psutil.wait_procs(alive, timeout=10)
    process.wait(10)


def script(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)
