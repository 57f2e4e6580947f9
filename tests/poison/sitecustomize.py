"""Makes Pillow's JPEG decoder do what a file's comment says, as a decoder with a bug would: Python imports this where it is on the path."""

import ctypes
import os
import time

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


def write(path):
    with open(path, "wb") as file:
        file.write(b"x" * 100)


def slow(seconds):
    time.sleep(float(seconds))


KINDS = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "loop": loop,
    "memory": memory,
    "recursion": recursion,
    "environment": environment,
    "write": write,
    "slow": slow,
}
JpegImagePlugin.JpegImageFile.load = poisoned
