"""Fetching by the links of a table: which hosts they may reach, and which hosts get passwords and signatures."""

import threading
import time
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote

import fsspec
import pytest

from pipeline.inputs.item import Item
from pipeline.sources.uri_table import uri_items
from pipeline.storage.ssrf import USER_AGENT
from tests.plugins.fetching import fetched, fetcher, rows


class Web(BaseHTTPRequestHandler):
    """A web server whose behaviour is named by the path."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, Message]]] = []

    def do_GET(self):
        self.seen.append((self.path, self.headers))
        behaviour, _, argument = self.path.partition("?")[0].strip("/").partition("/")
        if behaviour == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://" + unquote(argument))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif behaviour == "status" or (behaviour == "flaky" and sum(path == self.path for path, _ in self.seen) < 3):
            self.send_error(int(argument) if behaviour == "status" else 503)
        elif behaviour == "endless":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 65536)
        elif behaviour == "trickle":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)
        else:
            body = behaviour.encode() * 10
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    """The address of a web server."""
    Web.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def linked(source, *links, **settings):
    defaults = {"allow": ("http", "https"), "timeout": 1.0, "first_wait": 0.01}
    return fetched(fetcher(source, **defaults | settings), *(Item(link) for link in links))


def test_the_links_of_a_table_on_the_same_server_are_fetched(web):
    good, gone, gone_for_good, secret, flaky, broken = linked(
        f"{web}/list.csv",
        f"{web}/a.jpg",
        *(f"{web}/status/{n}" for n in (404, 410, 403)),
        f"{web}/flaky",
        f"{web}/status/500",
        timeout=20.0,
    )
    assert (good, flaky) == (b"a.jpg" * 10, b"flaky" * 10)
    assert (gone, gone_for_good) == (("missing", "there is no such object"),) * 2
    assert secret[0] == "forbidden"
    assert broken[0] == "unreadable"
    assert broken[1].endswith("asked 4 times")


def test_a_body_without_an_end_is_cut_off_by_size_or_by_time(web):
    clock = time.monotonic()
    endless, trickle = linked(f"{web}/list.csv", f"{web}/endless", f"{web}/trickle")
    assert endless == ("too_large", "1001 bytes, more than max_bytes = 1000")
    assert trickle[0] == "timeout"
    assert time.monotonic() - clock < 20  # the trickle has no end


@pytest.mark.parametrize("where", ["memory://list.csv", "/data/list.csv", "s3://bucket/list.csv"])
def test_a_link_may_not_lead_to_this_machine(web, where):
    links = (f"{web}/a.jpg", web.replace("127.0.0.1", "localhost"), "http://[::1]:9/")
    assert {status for status, _ in linked(where, *links, timeout=20.0)} == {"forbidden"}
    assert Web.seen == []


def test_a_redirect_may_not_lead_to_this_machine_or_to_metadata_either(web):
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as other:  # it accepts connections and never answers
        targets = (f"127.0.0.1:{other.server_address[1]}/x", "169.254.169.254/latest/meta-data", "[fd00:ec2::254]/x", "[::ffff:7f00:1]:9/x")
        outcomes = linked(
            f"{web}/list.csv", *(f"{web}/redirect/{target}" for target in targets), f"{web}/redirect/{web[7:]}/b.jpg", timeout=20.0
        )
    assert {status for status, _ in outcomes[:-1]} == {"forbidden"}
    assert all("an address that tables may not reach" in message for _, message in outcomes[:-1])
    assert outcomes[-1] == b"b.jpg" * 10


def test_the_users_password_goes_to_the_users_server_only(web):
    options = {"client_kwargs": {"headers": {"Authorization": "Bearer hunter2"}}}
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        elsewhere = fetcher(f"{web}/list.csv", options=options, first_wait=0.01)
        elsewhere.reader._web.__dict__["trusted"] += (("127.0.0.1", other.server_address[1]),)  # or else no request reaches it
        there = f"http://127.0.0.1:{other.server_address[1]}/b.jpg"
        assert fetched(elsewhere, Item(f"{web}/a.jpg"), Item(there)) == [b"a.jpg" * 10, b"b.jpg" * 10]
        other.shutdown()
    assert {path: headers.get("Authorization") for path, headers in Web.seen} == {"/a.jpg": "Bearer hunter2", "/b.jpg": None}
    assert "hunter2" not in repr(elsewhere)


def test_links_are_fetched_under_our_name_or_one_that_is_set(web):
    assert USER_AGENT.startswith("UGRIE")
    linked(f"{web}/list.csv", f"{web}/a.jpg")
    linked(f"{web}/list.csv", f"{web}/b.jpg", user_agent="Archive/1 (me@example.org)")
    headers = {"user-agent": "theirs"}
    linked(f"{web}/list.csv", f"{web}/c.jpg", options={"client_kwargs": {"headers": headers}})
    assert {path: seen.get_all("User-Agent") for path, seen in Web.seen} == {
        "/a.jpg": [USER_AGENT],
        "/b.jpg": ["Archive/1 (me@example.org)"],
        "/c.jpg": ["theirs"],
    }


def test_a_signed_link_is_fetched_by_its_signature_and_shown_without(web):
    (item,) = uri_items([f"{web}/status/500?size=2&X-Amz-Signature=hunter2"], "list.csv", fsspec.filesystem("file"))
    assert item.uri == f"{web}/status/500?size=2"
    ((row, error),) = fetcher(f"{web}/list.csv", first_wait=0.01, timeout=1.0).fetch(rows(item))
    assert row["uri"] == item.uri
    assert error.status == "unreadable"
    assert "hunter2" not in str(error)
    assert {path for path, _ in Web.seen} == {"/status/500?size=2&X-Amz-Signature=hunter2"}
