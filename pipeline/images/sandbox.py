"""Decodes in a process of its own, which a file may crash, hang or fill without harm: it costs that file's row.

The normal path decodes in the worker, for nothing. Only a block that has killed its worker is decoded again here. The process
sees no credentials, may write no file, and hands back plain bytes, never objects, since what runs in it is not to be trusted.
"""

import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

import numpy as np

from pipeline.errors import ImageError
from pipeline.images.decode import Decoded, Limits, decode

READY, DECODED, FAILED = b"r", b"d", b"f"
SIZE = struct.Struct("<ii")
GRACE_SECONDS = 10.0  # beyond a decode's time, in which its process must have ended itself
START_SECONDS = 120.0


class Sandbox:
    """A decoder as `pipeline.images.decode.Decoder` is one; use it as a context. Its process is started when first needed."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.process: subprocess.Popen | None = None
        self.connection: Connection

    def __enter__(self) -> Self:
        return self

    def __call__(self, data: bytes) -> Decoded:
        """Decodes and crops an image. Raises ImageError, also of a decoder that crashed (decoder_crashed) or took too long (timeout)."""
        process = self.process if self.process is not None else self._start()
        late = False
        try:
            self.connection.send_bytes(data)
            if late := not self.connection.poll(self.limits.seconds + GRACE_SECONDS):
                process.kill()
            answer = self.connection.recv_bytes()
        except (EOFError, OSError):
            raise self._ended(late) from None
        kind, rest = answer[:1], answer[1:]
        if kind == FAILED:
            raise ImageError(*json.loads(rest))
        size = self.limits.crop_size
        return Decoded(np.frombuffer(rest, np.uint8, offset=SIZE.size).reshape(size, size, 3), *SIZE.unpack_from(rest))

    def _start(self) -> subprocess.Popen:
        ours, theirs = socket.socketpair()
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "LANG", "HOME", "TMPDIR")}
        environment = kept | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pipeline.images.sandbox", str(theirs.fileno()), json.dumps(vars(self.limits))]
        with theirs:
            self.process = subprocess.Popen(
                command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        self.connection = Connection(ours.detach())
        try:
            ready = self.connection.poll(START_SECONDS) and self.connection.recv_bytes() == READY
        except (EOFError, OSError):
            ready = False
        if not ready:
            self.close()
            raise RuntimeError("the process in which images are decoded apart does not start; its own messages say why")
        return self.process

    def _ended(self, late: bool) -> ImageError:
        """What an image's process died of. The next image gets another."""
        code = self.close()
        if late or code == -signal.SIGALRM:
            return ImageError("timeout", f"not decoded within decode_timeout = {self.limits.seconds:g} s")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ImageError("decoder_crashed", f"decoding it ended a process of its own with {how}")

    def close(self) -> int:
        """Ends the process, if there is one. Returns its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        self.connection.close()  # at which it ends by itself
        try:
            return process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def serve(connection: Connection, limits: Limits) -> None:
    """Decodes what comes until nothing does. A decode that takes too long ends the process, by a signal that native code can't miss."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection.send_bytes(READY)
    while True:
        try:
            data = connection.recv_bytes()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limits.seconds)
        try:
            decoded = decode(data, limits.crop_size, limits.max_pixels)
            answer = DECODED + SIZE.pack(decoded.width, decoded.height) + decoded.crop.tobytes()
        except ImageError as error:
            answer = FAILED + json.dumps([error.status, str(error)]).encode()
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send_bytes(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), Limits(**json.loads(sys.argv[2])))
