"""Makes Pillow's JPEG decoder do what a file's comment says, as a decoder with a bug would: Python imports this where it is on the path."""

import ctypes
import os
import socket
import time
from pathlib import Path

from PIL import JpegImagePlugin

load = JpegImagePlugin.JpegImageFile.load


def poisoned(self):
    comment = self.info.get("comment", b"").decode(errors="replace")
    if comment.startswith("poison: "):
        kind, *arguments = comment.removeprefix("poison: ").split()
        KINDS[kind](*arguments)
    return load(self)


def loop():
    ctypes.PyDLL(None).sleep(10**6)  # in native code, with the interpreter's lock


def memory():
    held = bytearray(3 * 2**30)
    held[:: 2**12] = b"x" * len(held[:: 2**12])  # each page is there in earnest


def recursion():
    recursion()


def environment():
    raise ValueError(dict(os.environ))


def attempt(name, *arguments):
    """Do what a file that took over its decoder might do, and report what came of it."""
    try:
        ATTEMPTS[name](*arguments)
    except OSError as error:
        raise ValueError(f"refused: {error.strerror}") from None
    raise ValueError("it succeeded")


def slow(seconds):
    time.sleep(float(seconds))


def call(name, *arguments):
    """Call a function of the C library that returns -1 if it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*map(int, arguments)) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


ATTEMPTS = {
    "parent": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "read": lambda path: Path(path).read_bytes(),
    "write": lambda path: Path(path).write_bytes(b"x"),
    "remove": os.remove,
    "rename": lambda path: os.rename(path, f"{path}-taken"),
    "socket": socket.socket,
    "connect": lambda port: socket.socket().connect(("127.0.0.1", int(port))),
    "pipe": os.pipe,
    "fork": os.fork,
    "run": lambda: os.execv("/bin/true", ["true"]),
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "kill": lambda: os.kill(os.getppid(), 0),
    "trace": lambda: call("ptrace", 16, os.getppid(), 0, 0),
    "root": lambda: os.setresuid(0, 0, 0),
    "limits": lambda: call("prlimit", 0, 7, 0, 0),
}
KINDS = {
    "attempt": attempt,
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "loop": loop,
    "memory": memory,
    "recursion": recursion,
    "environment": environment,
    "slow": slow,
}
JpegImagePlugin.JpegImageFile.load = poisoned
