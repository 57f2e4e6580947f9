"""Single requests to storage, and renewed credentials."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.errors import StorageError
from pipeline.storage.client import read_range, read_tail, with_retries
from pipeline.storage.files import create_atomic, read
from pipeline.storage.filesystem import connect
from pipeline.storage.retry import Policy, RangeError, ShortError


@pytest.mark.parametrize("where", ["local", "memory", "s3"])
def test_the_end_of_a_file_comes_with_its_size(where, s3, tmp_path):
    base = {"local": str(tmp_path), "memory": "memory://tail", "s3": f"s3://{s3.bucket}/tail"}[where]
    fs, path = connect(f"{base}/file", s3.options if where == "s3" else {})
    fs.pipe_file(path, b"0123456789")
    assert read_tail(fs, path, 10, 4) == (b"6789", 10)
    assert read_tail(fs, path, 10, 10) == read_tail(fs, path, 10, 11) == (b"0123456789", 10)
    with pytest.raises(FileNotFoundError):
        read_tail(fs, f"{path}-not-there", 10, 4)


def test_the_end_of_an_object_is_one_request_for_the_version_that_is_meant(s3, failing):
    uri = s3.put("tail/one", b"0123456789")
    etag = s3.fs.info(uri)["ETag"].strip('"')
    with failing() as (proxy, server):
        fs, path = connect(uri, server.options)
        assert read_tail(fs, path, 10, 4, etag) == (b"6789", 10)
        assert (proxy.count("GET"), proxy.requests.total()) == (1, 1)
        with pytest.raises(OSError, match=r"PreconditionFailed|pre-conditions"):
            read_tail(fs, path, 10, 4, "0" * 32)
    with failing(always={"one": "short_length"}) as (_, server), pytest.raises(ShortError, match="2 bytes came of 4"):
        read_tail(connect(uri, server.options)[0], path, 10, 4)


def test_credentials_that_were_renewed_meanwhile_are_taken(s3, monkeypatch, tmp_path):
    s3.put("renewed/a", b"mine")
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)

    def give(key, secret):
        file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")

    give("SOMEBODYELSESKEY", "not-the-secret")
    fs, path = connect(f"s3://{s3.bucket}/renewed/a", {"client_kwargs": s3.options["client_kwargs"]})
    outcomes = []

    def attempt(seconds):
        try:
            outcomes.append(read_range(fs, path, seconds))
        except PermissionError:
            outcomes.append("refused")
            give(s3.key, s3.secret)
            raise
        return outcomes[-1]

    assert with_retries(fs, path, Policy(20, first_wait=0.01), attempt) == b"mine"
    assert outcomes == ["refused", b"mine"]


def test_credentials_that_stay_refused_stop_the_run_in_one_line_that_says_how_to_go_on(s3):
    fs, path = connect(f"s3://{s3.bucket}/x", s3.refused)
    with pytest.raises(StorageError, match=r"^the credentials for s3://images/x are expired or wrong \(InvalidAccessKeyId\): renew them; "):
        read(fs, path, Policy(20, first_wait=0.01))
    fs, path = connect(f"s3://{s3.bucket}/x", s3.options | {"secret": "not-the-secret"})
    with pytest.raises(StorageError, match=r"\(SignatureDoesNotMatch\)") as stopped:
        create_atomic(fs, path, b"x")
    assert "not-the-secret" not in str(stopped.value)


FILE = b"0123456789"


class Careless(BaseHTTPRequestHandler):
    """A server of FILE, which answers requests for parts as the last word of the path says."""

    def do_GET(self):
        first, last = self.headers.get("Range", "bytes=0-9").removeprefix("bytes=").split("-")
        start = int(first) if first else 10 - int(last)
        end = min(int(last) + 1, 10) if first and last else 10
        body, answer = FILE[start:end], {"Content-Range": f"bytes {start}-{end - 1}/10"}
        match self.path.rpartition("/")[2]:
            case "ignores":
                body, answer = FILE, {}
            case "shifted":
                body, answer = FILE[start - 1 : end - 1], {"Content-Range": f"bytes {start - 1}-{end - 2}/10"}
            case "unknown":
                answer = {"Content-Range": f"bytes {start}-{end - 1}/*"}
            case "odd":
                answer = {"Content-Range": "multipart"}
            case "compressed":
                body, answer = gzip.compress(body), answer | {"Content-Encoding": "gzip"}
        self.send_response(206 if answer else 200)
        for name, value in (answer | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def careless():
    """File systems of one careless server, by web and as S3."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Careless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": address, "region_name": "us-east-1"}}
        yield {"web": (connect(f"{address}/x", {})[0], address), "s3": (connect("s3://bucket/x", options)[0], "bucket")}
        server.shutdown()


@pytest.mark.parametrize("where", ["web", "s3"])
def test_a_server_that_sends_other_bytes_than_asked_for_is_an_error(careless, where):
    fs, base = careless[where]
    assert read_range(fs, f"{base}/right", 10, 3, 6) == b"345"
    assert read_range(fs, f"{base}/right", 10, 3, 99) == b"3456789"
    assert read_range(fs, f"{base}/unknown", 10, 3, 6) == b"345"
    for behaviour, message in {"ignores": "from byte 0 on, not from byte 3", "shifted": "from byte 2 on", "odd": "'multipart'"}.items():
        with pytest.raises(RangeError, match=message):
            read_range(fs, f"{base}/{behaviour}", 10, 3, 6)


@pytest.mark.parametrize("where", ["web", "s3"])
def test_the_beginning_of_a_file_is_right_from_a_server_that_gives_whole_files_only(careless, where):
    fs, base = careless[where]
    assert read_range(fs, f"{base}/ignores", 10, 0, 4) == b"0123"


def test_a_compressed_answer_is_the_file_or_an_error(careless):
    fs, base = careless["web"]
    assert read_range(fs, f"{base}/compressed", 10) == FILE
    with pytest.raises(RangeError, match="compressed"):
        read_range(fs, f"{base}/compressed", 10, 3, 6)


@pytest.mark.slow
def test_the_end_of_an_object_is_right_or_an_error(careless):
    fs, base = careless["s3"]
    assert read_tail(fs, f"{base}/right", 10, 4) == (b"6789", 10)
    assert read_tail(fs, f"{base}/ignores", 10, 10) == read_tail(fs, f"{base}/ignores", 10, 11) == (FILE, 10)
    for behaviour in ("ignores", "shifted", "unknown", "odd"):
        with pytest.raises(RangeError):
            read_tail(fs, f"{base}/{behaviour}", 10, 4)
