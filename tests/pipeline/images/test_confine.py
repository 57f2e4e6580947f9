"""Confinement: each protection alone, in a process of its own. tests/pipeline/images/test_sandbox.py has all of them together."""

import os
import subprocess
import sys

import pytest

PROBES = """
import os, resource, socket, sys, threading
from pathlib import Path
from pipeline.images import confine

def refused(act, *arguments):
    try:
        act(*arguments)
    except OSError as error:
        return error.strerror
    return "it succeeded"

secret, shared = map(Path, sys.argv[1:])
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user id needs root")


@pytest.fixture
def run(tmp_path):
    """Runs statements in a process, and returns the values of an expression after them."""
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "shared").mkdir(mode=0o777)
    (tmp_path / "shared").chmod(0o777)

    def run(statements, expression):
        code = f"{PROBES}{statements}\nprint({expression})"
        command = [sys.executable, "-c", code, str(tmp_path / "secret"), str(tmp_path / "shared")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


@as_root
def test_another_user_reads_neither_its_parent_nor_private_files_and_does_not_come_back(run):
    probes = "refused(Path(f'/proc/{os.getppid()}/environ').read_bytes), refused(secret.read_bytes), refused(os.setresuid, 0, 0, 0)"
    assert run("assert confine.change_user()", probes) == "Permission denied Permission denied Operation not permitted"


def test_the_filter_refuses_calls_but_not_threads(run):
    acts = "secret.read_bytes", "(shared / 'new').touch", "socket.socket", "os.fork", "lambda: os.kill(os.getppid(), 0)"
    start = "thread = threading.Thread(target=print, args=('thread',)); thread.start(); thread.join()"
    probes = ", ".join(f"refused({act})" for act in acts)
    assert run(f"assert confine.filter_calls()\n{start}", f"{{{probes}}}") == "thread\n{'Operation not permitted'}"


def test_without_a_filter_no_file_no_socket_and_no_process_is_opened(run):
    without = "confine.filter_calls = lambda: False\nassert confine.CALLS not in confine.confine(10**9)"
    assert run(without, "{refused(secret.read_bytes), refused(socket.socket)} <= {'Too many open files', 'Permission denied'}") == "True"
    assert run(without, "refused(os.fork)") == "Resource temporarily unavailable"


def test_its_memory_is_limited(run):
    act = "try:\n    bytearray(10**9)\nexcept MemoryError:\n    failed = True"
    assert run(f"confine.confine(10**9)\n{act}", "failed") == "True"


def test_on_a_machine_without_a_filter_it_is_left_out(run):
    assert run("confine.platform.machine = lambda: 'riscv64'", "confine.filter_calls()") == "False"
