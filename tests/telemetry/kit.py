"""Gateways with logs of their own, and upstreams that remember what they were sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2

from app.children import Child
from tests.conftest import MODEL, clean_environ
from tests.fakes.sandbox import SandboxServer

FAL_KEY = "a-key-of-fal:a-secret-of-fal"
KEY = "sk-a-callers-own-key"
PROMPT = "words-that-only-the-prompt-has"


@dataclass
class Running:
    """A gateway and what it has written so far."""

    http: httpx2.Client
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text("utf-8")

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def edit(self, photo: bytes, headers: Mapping[str, str] | None = None, **more: str) -> httpx2.Response:
        ask = {"model": MODEL, "prompt": PROMPT, "size": "512x512"} | more
        path = "/openai/v1/images/edits"
        return self.http.post(path, data=ask, files={"image": photo}, headers=dict(headers or {}))


@contextmanager
def gateway(folder: Path, sandbox: SandboxServer, **environ: str) -> Iterator[Running]:
    """Its log is whole once the block has ended."""
    (folder / "config.yaml").write_text("{}\n")
    fal = {f"FAL_{name.upper()}": value for name, value in sandbox.settings.items()}
    ours = {
        "FAL_KEY": FAL_KEY,
        "IMAGEGATE_CONFIG": str(folder / "config.yaml"),
        "IMAGEGATE_DATA_DIR": str(folder / "data"),
        "IMAGEGATE_API_KEY": KEY,
    }
    log = folder / "log"
    with (
        log.open("w") as stderr,
        Child(["serve", "--port", "0"], clean_environ(fal | ours | environ), stderr=stderr) as it,
    ):
        authorization = {"authorization": f"Bearer {KEY}"}
        with httpx2.Client(base_url=it.said["url"], headers=authorization, trust_env=False, timeout=30) as http:
            yield Running(http, log)


@dataclass
class Recorder:
    """A server that answers everything alike, and remembers it."""

    status: int
    body: bytes
    url: str = ""
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def recorder(status: int, body: bytes = b"{}") -> Iterator[Recorder]:
    found = Recorder(status, body)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", "0")))
            found.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, content))
            self.send_response(found.status)
            self.send_header("content-length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
