"""A stand-in for the Hugging Face Hub on this machine: the few routes that its client asks for the files of models and data sets."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


@dataclass
class Hub:
    """Repositories by name: of each the files by commit, and the commits by revision. Those in `gated` need the token.

    A data set's name begins with `datasets/`.
    """

    files: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    revisions: dict[str, dict[str, str]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    token: str | None = None
    message: str | None = None  # sent with errors
    requests: list[str] = field(default_factory=list)
    endpoint: str = ""

    def add(self, name: str, folder: Path, commit: str = COMMIT, **revisions: str) -> None:
        """Add the files of a folder as a commit, which is now that of the main branch."""
        self.files.setdefault(name, {})[commit] = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
        }
        self.revisions.setdefault(name, {}).update({"main": commit, commit: commit} | revisions)

    def answer(self, path: str, authorization: str | None) -> tuple[int, str | None, bytes]:
        """Return the status, the hub's error code and the body for a path."""
        words = unquote(path).strip("/").split("/")
        is_api = words[0] == "api"
        words = words[1:] if is_api else words
        kind = "datasets/" if words[0] == "datasets" else ""
        name, *rest = words[1:] if is_api or kind else words
        name, rest = f"{kind}{name}/{rest[0]}", rest[1:]
        if name not in self.files:
            return 401, "RepoNotFound", b""
        if is_api and rest == ["refs"]:
            branches = [{"name": each, "ref": f"refs/heads/{each}", "targetCommit": at} for each, at in self.revisions[name].items()]
            return 200, None, json.dumps({"branches": branches, "converts": [], "tags": []}).encode()
        commit = self.revisions[name].get(rest[1] if len(rest) > 1 else "main")
        if commit is None:
            return 404, "RevisionNotFound", b""
        files = self.files[name][commit]
        if is_api and rest[:1] in ([], ["revision"]):
            return (
                200,
                None,
                json.dumps({"id": name.removeprefix(kind), "sha": commit, "siblings": [{"rfilename": file} for file in files]}).encode(),
            )
        if name in self.gated and (self.token is None or authorization != f"Bearer {self.token}"):
            return 401 if authorization is None else 403, "GatedRepo", b""
        if is_api and rest[0] == "tree":
            prefix = "".join(f"{word}/" for word in rest[2:])
            entries: dict[str, dict[str, object]] = {}
            for file, data in files.items():
                if file.startswith(prefix):
                    below = file[len(prefix) :].partition("/")
                    about = {"type": "directory"} if below[1] else {"type": "file", "size": len(data)}
                    entries[below[0]] = about | {"path": prefix + below[0], "oid": hashlib.sha1(data).hexdigest()}
            return (200, None, json.dumps(list(entries.values())).encode()) if entries else (404, "EntryNotFound", b"")
        if rest[0] == "resolve" and "/".join(rest[2:]) in files:
            return 200, None, files["/".join(rest[2:])]
        return 404, "EntryNotFound", b""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """An empty hub, which Hugging Face's client takes for its own, and an empty cache of downloaded models."""
    from huggingface_hub import HfFileSystem, constants

    from pipeline.stages import hub, model_files

    found = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.requests.append(urlsplit(self.path).path)
            status, code, body = found.answer(urlsplit(self.path).path, self.headers.get("Authorization"))
            if status == 200 and (asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))) is not None:
                status, body = 206, body[int(asked[1]) : int(asked[2]) + 1]
            self.send_response(status)
            for header, value in (("X-Error-Code", code), ("X-Error-Message", found.message)):
                if value is not None and status >= 400:
                    self.send_header(header, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        found.endpoint = f"http://127.0.0.1:{server.server_port}"
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)  # for other processes
        monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("UGRIE_CACHE", str(tmp_path_factory.mktemp("machine") / "cache"))
        HfFileSystem.clear_instance_cache()
        hub.pin.cache_clear()
        model_files._once.cache_clear()
        yield found
        server.shutdown()
        HfFileSystem.clear_instance_cache()
        hub.pin.cache_clear()
        model_files._once.cache_clear()
