"""Sandbox: decoding in a separate process. A file that crashes it, hangs it or fills its memory fails alone.

Images are normally decoded in the worker, at no extra cost; only a block that has killed its worker is decoded here. Code that runs in
the process is not trusted: it has no credentials, `pipeline.images.confine` takes its rights, and it returns plain bytes, never objects.

    python -m pipeline.images.sandbox FILE_DESCRIPTOR LIMITS      # how it starts that process; LIMITS is JSON
"""

import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
from functools import cache
from io import BytesIO
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image, ImageCms, ImageColor, ImageFilter, ImagePalette, TiffImagePlugin  # noqa: F401  (loaded before confinement)

from pipeline.errors import ImageError
from pipeline.images.confine import CALLS, USER, confine
from pipeline.images.decode import FORMATS, HEIF, Decoded, Limits, decode, load_heif

logger = logging.getLogger(__name__)

READY, DECODED, FAILED = b"r", b"d", b"f"
SIZE = struct.Struct("<ii")
GRACE_SECONDS = 10.0  # after a decode's limit, within which its process must have ended itself
START_SECONDS = 120.0
LEAST_PIXELS = 10**6  # that the small images of the start may have, whatever a run's limit is


class Sandbox:
    """A context manager with the interface of `pipeline.images.decode.Decoder`. Its process is started when first needed."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.process: subprocess.Popen | None = None
        self.connection: Connection

    def __enter__(self) -> Self:
        return self

    def __call__(self, data: bytes) -> Decoded:
        """Decode and crop an image. Raises ImageError, also for a decoder that crashed (decoder_crashed) or took too long (timeout)."""
        process = self.process if self.process is not None else self._start()
        timed_out = False
        try:
            self.connection.send_bytes(data)
            if timed_out := not self.connection.poll(self.limits.seconds + GRACE_SECONDS):
                process.kill()
            reply = self.connection.recv_bytes()
        except (EOFError, OSError):
            raise self._failure(timed_out) from None
        kind, body = reply[:1], reply[1:]
        if kind == FAILED:
            raise ImageError(*json.loads(body))
        size = self.limits.crop_size
        return Decoded(np.frombuffer(body, np.uint8, offset=SIZE.size).reshape(size, size, 3), *SIZE.unpack_from(body))

    def _start(self) -> subprocess.Popen:
        parent, child = socket.socketpair()
        inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "LANG")}
        environment = inherited | {
            "HOME": "/nonexistent",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", __name__, str(child.fileno()), json.dumps(vars(self.limits))]
        with child:
            self.process = subprocess.Popen(
                command, env=environment, pass_fds=[child.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        self.connection = Connection(parent.detach())
        try:
            reply = self.connection.recv_bytes() if self.connection.poll(START_SECONDS) else b""
        except (EOFError, OSError):
            reply = b""
        if not reply.startswith(READY):
            self.close()
            raise RuntimeError("the sandbox's process does not start: see its messages on stderr")
        _log_protections(*json.loads(reply[len(READY) :]))
        return self.process

    def _failure(self, timed_out: bool) -> ImageError:
        """Return the failure of the image at which the process ended. The next image starts another."""
        code = self.close()
        if timed_out or code == -signal.SIGALRM:
            return ImageError("timeout", f"not decoded within decode_timeout = {self.limits.seconds:g} s")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ImageError("decoder_crashed", f"decoding it ended a process of its own with {how}")

    def close(self) -> int:
        """End the process, if there is one, and return its exit code, or 0."""
        process, self.process = self.process, None
        if process is None:
            return 0
        self.connection.close()  # the process then ends by itself
        try:
            return process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@cache
def _log_protections(*on: str) -> None:
    """Log once which protections the sandbox's process has."""
    missing = [name for name in (USER, CALLS) if name not in on]
    lacks = f"; this machine does not allow {' and '.join(missing)}" if missing else ""
    logger.warning("decoding in a separate process, confined by %s%s", ", ".join([*on, "limits of memory and files"]), lacks)


def serve(connection: Connection, limits: Limits) -> None:
    """Decode images until the connection closes. A decode that takes too long ends the process, by SIGALRM, also within native code."""
    _load_decoders(limits)
    connection.send_bytes(READY + json.dumps(confine(limits.memory)).encode())
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limits.seconds)
        try:
            decoded = decode(data, limits.crop_size, limits.max_pixels, limits.memory)
            reply = DECODED + SIZE.pack(decoded.width, decoded.height) + decoded.crop.tobytes()
        except ImageError as error:
            reply = FAILED + json.dumps([error.status, str(error)]).encode()
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send_bytes(reply)


def _load_decoders(limits: Limits) -> None:
    """Decode an image of each format: libraries and modules that decoding loads when it first needs them are loaded then."""
    Image.init()
    if HEIF:
        load_heif()
    for name in FORMATS:
        with BytesIO() as file:
            try:
                Image.new("RGB", (32, 32), "red").save(file, name)
            except (OSError, KeyError):  # a Pillow without this format, or without its encoder
                continue
            decode(file.getvalue(), limits.crop_size, max(limits.max_pixels, LEAST_PIXELS))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), Limits(**json.loads(sys.argv[2])))
