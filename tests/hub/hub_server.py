"""A server on this machine that answers as the Hugging Face hub does, and misbehaves on request."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from camelid.hub.store import models

COMMIT = "c0ffee00" * 5
LARGE = 1000  # bytes; larger files have a SHA-256 in the list, others git's hash
WEIGHTS = b"GGUF" + bytes(i * i % 251 for i in range(300_000))
REPO = {
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"p" * 2000,
    "original/consolidated.00.pth": b"m" * 5000,
    "original/params.json": b'{"dim": 1}',
    "original/tokenizer.model": b"t" * 3000,
    "LICENSE.txt": b"terms",
    "README.md": b"read me",
}


class HubServer:
    """Repositories and plain files, and what the next requests for file contents shall do wrong.

    A fault is a word with an optional value: "cut:N" and "stall:N" send N bytes of the body; "long" and "short" lie in
    Content-Length; "whole" ignores a range; "elsewhere" answers another range; "flip" changes a byte; "gzip"; "quiet"
    gives no length; "status:N"; "away" redirects to the same file under another host name; "expired" does, to a 403.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.files: dict[str, bytes] = {}  # path → content, outside of repositories
        self.gated: set[str] = set()
        self.good_token = "hf_good"
        self.faults: list[str] = []
        self.always: str | None = None
        self.list_faults: list[str] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.tags: dict[str, str] = {}
        self.released = threading.Event()  # ends a stall
        self.url = ""

    def contents_asked(self) -> list[tuple[str, dict[str, str]]]:
        """Requests for file contents."""
        return [(path, headers) for path, headers in self.asked if not path.startswith("/api/")]

    def listing(self, repo: str) -> bytes:
        rows = []
        for path, content in self.repos[repo].items():
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            row = {"rfilename": path, "size": len(content), "blobId": git}
            if len(content) > LARGE:
                row["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
                row["blobId"] = "0" * 40
            rows.append(row)
        return json.dumps({"sha": COMMIT, "siblings": rows, "cardData": {"license": "apache-2.0"}}).encode()


def incoming(folder: str = "a--b") -> Path:
    """Where a pull keeps what is not complete."""
    return models() / ".incoming" / folder


def names(folder: Path) -> set[str]:
    """Names of the files in a folder."""
    return {path.name for path in folder.iterdir()}


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A running server; ends with the block."""
    hub = HubServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.asked.append((path, dict(self.headers)))
        if path.startswith("/api/models/"):
            self._list(path.removeprefix("/api/models/"))
        else:
            self._content(path)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _list(self, path: str) -> None:
        repo, _, revision = path.partition("/revision/")
        if self.hub.list_faults:
            self._say(int(self.hub.list_faults.pop(0)))
        elif self._refused(repo):
            pass
        elif repo not in self.hub.repos or revision not in ("main", "step1000", COMMIT):
            self._say(404)
        else:
            self._say(200, self.hub.listing(repo))

    def _refused(self, repo: str) -> bool:
        if repo not in self.hub.gated:
            return False
        given = self.headers.get("Authorization")
        if given == f"Bearer {self.hub.good_token}":
            return False
        self._say(403 if given else 401)
        return True

    def _content(self, path: str) -> None:
        fault = self.hub.faults.pop(0) if self.hub.faults else self.hub.always
        word, _, value = (fault or "").partition(":")
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        content = self.hub.files.get(path)
        if content is None and repo in self.hub.repos:
            if self._refused(repo):
                return
            content = self.hub.repos[repo].get(rest.partition("/")[2])
        if content is None:
            self._say(404)
        elif word == "status":
            self._say(int(value))
        elif word in ("away", "expired"):
            port = self.hub.url.rpartition(":")[2]
            self.hub.files[path] = content
            if word == "expired":
                self.hub.faults.insert(0, "status:403")
            self._say(302, location=f"http://localhost:{port}{urllib.parse.quote(path)}")
        else:
            self._send(content, word, int(value or 0), self.hub.tags.get(path))

    def _send(self, content: bytes, word: str, n: int, tag: str | None) -> None:
        start, end = 0, len(content)
        asked = self.headers.get("Range", "").removeprefix("bytes=")
        if asked and word != "whole":
            first, _, last = asked.partition("-")
            start, end = int(first), int(last) + 1 if last else len(content)
            if start >= len(content):
                self._say(416)
                return
            shown = start + 7 if word == "elsewhere" else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {shown}-{end - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:end]
        if word == "flip":
            body = bytes([body[0] ^ 1]) + body[1:]
        if word == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if tag:
            self.send_header("ETag", tag)
        length = {"long": len(body) + 1000, "short": len(body) // 2}.get(word, len(body))
        if word != "quiet":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        try:
            self.wfile.write(body[:n] if word in ("cut", "stall") else body[:length])
            if word == "stall":
                self.wfile.flush()
                self.hub.released.wait(20)
        except OSError:  # the client has left
            pass
        self.close_connection = True

    def _say(self, status: int, body: bytes = b"", location: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)
