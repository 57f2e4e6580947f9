"""A proxy in front of an S3 server that injects faults of real storage: for a fraction of the requests, or always for some keys.

    with Proxy("http://127.0.0.1:8333", fraction=0.2, kinds=READING) as proxy:
        options = {"client_kwargs": {"endpoint_url": proxy.endpoint}}

Whether a request fails depends on the seed, its method, its path and its number among equal requests, and not on the order in which
concurrent requests arrive. The Host header is passed on unchanged, since the signature covers it.
"""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

ANSWERS = {
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "internal_error": (500, "InternalError", "We encountered an internal error. Please try again."),
    "denied": (403, "AccessDenied", "Access Denied."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
}
# Faults before the server sees the request.
UNSEEN = ("slow_down", "internal_error", "reset", "stall")
# Faults after the server has executed the request.
LOST = ("lost", "lost_error")
# Faults in the body of the answer to a GET. HTTP can't tell `short_length` from a whole body.
BODIES = ("body_reset", "body_stall", "body_cut", "short_length", "long_length")

READING = (*UNSEEN, *BODIES)
WRITING = (*UNSEEN, *LOST)
KINDS = {*ANSWERS, *READING, *WRITING}


@dataclass
class Message:
    """A request or an answer: the first line, the headers as received, the body."""

    first: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def head(self) -> bytes:
        """Return the message without its body, with the length that its headers state."""
        return b"\r\n".join([self.first, *(key + b": " + value for key, value in self.headers)]) + b"\r\n\r\n"

    def bytes(self, length: int | None = None) -> bytes:
        """Return the message as it is sent; `length` replaces the body's true length in the headers."""
        kept = [(key, value) for key, value in self.headers if key.lower() not in (b"content-length", b"transfer-encoding")]
        claimed = len(self.body) if length is None else length
        head = [self.first, *(key + b": " + value for key, value in kept), b"Content-Length: %d" % claimed]
        return b"\r\n".join(head) + b"\r\n\r\n" + self.body


async def read_head(reader: asyncio.StreamReader) -> Message | None:
    """Return the next message without its body, or None if the connection has ended."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head[:-4].split(b"\r\n")
    return Message(first, [(key, value.strip()) for key, _, value in (line.partition(b":") for line in lines)])


async def read_body(reader: asyncio.StreamReader, message: Message) -> None:
    """Read the body of a message, chunked or of the stated length, into it."""
    if (message.header(b"transfer-encoding") or b"").lower() == b"chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            message.body += await reader.readexactly(size)
            await reader.readline()
        while (await reader.readline()).strip():
            pass
    else:
        message.body = await reader.readexactly(int(message.header(b"content-length") or 0))


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST, as a crash would."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class Proxy:
    """Injects one of the faults `kinds` into a `fraction` of the requests, chosen by `seed`, at most `most` times in a row for a path.

    `always` maps a part of a path to the fault of all its requests. `delay` is how many seconds each request waits. `requests` counts
    requests by method and path, `failed` faults by kind.
    """

    upstream: str
    fraction: float = 0.0
    kinds: tuple[str, ...] = READING
    seed: int = 0
    most: int = 3
    always: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    endpoint: str = ""

    def __post_init__(self) -> None:
        if unknown := {*self.kinds, *self.always.values()} - KINDS:
            raise ValueError(f"{', '.join(sorted(unknown))} are unknown faults: choose from {', '.join(sorted(KINDS))}")

    def __enter__(self) -> "Proxy":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._row: Counter[tuple[str, str]] = Counter()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop).result(10)
        self.endpoint = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        async def stop() -> None:
            self._server.close()
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def count(self, method: str, path: str = "") -> int:
        """Return the number of requests with this method to paths that contain `path`."""
        return sum(count for (verb, where), count in self.requests.items() if verb == method and path in where)

    def _fault(self, method: str, path: str) -> str | None:
        self.requests[method, path] += 1
        kind = next((kind for part, kind in self.always.items() if part in path), None)
        if kind is None:
            rng = random.Random(f"{self.seed} {method} {path} {self.requests[method, path]}")
            kinds = [kind for kind in self.kinds if method == "GET" or kind not in BODIES]
            if kinds and self._row[method, path] < self.most and rng.random() < self.fraction:
                kind = rng.choice(kinds)
        self._row[method, path] = self._row[method, path] + 1 if kind else 0
        if kind:
            self.failed[kind] += 1
        return kind

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the requests of one client connection."""
        where = urlsplit(self.upstream)
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while (request := await read_head(reader)) is not None:
                if request.header(b"expect"):
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    request.headers = [(key, value) for key, value in request.headers if key.lower() != b"expect"]
                await read_body(reader, request)
                method, target = request.first.decode().split(" ")[:2]
                kind = self._fault(method, target.partition("?")[0])
                if self.delay:
                    await asyncio.sleep(self.delay)
                if kind in ("reset", "stall") or kind in ANSWERS:
                    if not await self._instead(kind, method, reader, writer):
                        return
                    continue
                if server is None:
                    server = await asyncio.open_connection(where.hostname, where.port)
                server[1].write(request.bytes() if request.body else request.head())
                answer = await read_head(server[0])
                if answer is None:
                    return reset(writer)
                if method != "HEAD" and answer.first.split(b" ")[1] not in (b"204", b"304"):
                    await read_body(server[0], answer)
                if (answer.header(b"connection") or b"").lower() == b"close":
                    server[1].close()
                    server = None
                if not await self._give(kind, method, answer, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client disconnected, or the proxy was stopped
        finally:
            writer.close()
            if server is not None:
                server[1].close()

    async def _instead(self, kind: str, method: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Fail a request without passing it on. Returns whether the connection stays open."""
        if kind == "reset":
            reset(writer)
            return False
        if kind == "stall":
            await reader.read()  # until the client gives up
            return False
        status, code, text = ANSWERS[kind]
        body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
        answer = Message(b"HTTP/1.1 %d %s" % (status, code.encode()), [(b"Content-Type", b"application/xml")], body)
        writer.write(answer.bytes().removesuffix(body) if method == "HEAD" else answer.bytes())
        await writer.drain()
        return True

    async def _give(
        self, kind: str | None, method: str, answer: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Pass on the server's answer, with the fault `kind` if there is one. Returns whether the connection stays open."""
        if kind == "lost":
            reset(writer)
            return False
        if kind == "lost_error":
            return await self._instead("internal_error", method, reader, writer)
        if kind is None or not answer.body or not answer.first.split(b" ")[1].startswith(b"2"):
            writer.write(answer.bytes() if answer.body else answer.head())
            await writer.drain()
            return True
        whole, half = len(answer.body), Message(answer.first, answer.headers, answer.body[: len(answer.body) // 2])
        if kind == "short_length":
            writer.write(half.bytes())
            await writer.drain()
            return True
        writer.write(half.bytes(whole) if kind != "long_length" else answer.bytes(whole + 100))
        await writer.drain()
        if kind == "body_stall":
            await reader.read()
        elif kind == "body_reset":
            reset(writer)
        return False
