"""Postbox keeps the contract of all providers, against a stand-in of its server: `python -m pytest`."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from imagegate_postbox import Postbox

from providers.base import Clock, Media, Provider, ProviderCall
from providers.testing import ProviderContract, RealClock
from providers.testing.kit import connections_to, picture

KEY = "postbox-key-that-nobody-may-see"


class Server(ThreadingHTTPServer):
    """A stand-in, in threads of its own. `answer`: the next one, as status and body; "drop": none."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs, self.delay, self.answer = 0, 0.0, ""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who hung up needs no answer."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(self.server.delay)
        answer, self.server.answer = self.server.answer, ""
        if not answer.startswith("4"):
            self.server.jobs += 1
        if answer == "drop":
            return
        made = base64.b64encode(picture().blob.read()).decode()
        status, _, body = (answer or f'200 {{"images": ["{made}"]}}').partition(" ")
        self.send_response(int(status))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are quiet."""


class PostboxUpstream:
    secrets = (KEY,)
    uploads_above = None
    synchronous = True

    def __init__(self, server: Server, port: int, http: httpx2.AsyncClient) -> None:
        self.server, self.port, self.http = server, port, http

    def provider(self, *, reachable: bool = True, clock: Clock | None = None) -> Provider:
        url = f"http://127.0.0.1:{self.port if reachable else 9}"
        return Postbox({"url": url, "key": KEY}, self.http, clock or RealClock())

    def call(self, *pictures: Media, inline: bool = False, deadline: float = float("inf")) -> ProviderCall:
        payload: dict[str, Any] = {"prompt": "make it night", "pictures": list(pictures)}
        return ProviderCall("night-1", payload, "req_test", 600, deadline)

    def refuse(self) -> None:
        self.server.answer = "400 no"

    def lose_reply(self) -> None:
        self.server.answer = "drop"

    def fail_job(self) -> None:
        self.server.answer = "500 broken"

    def lose_result(self) -> None:
        """Nothing is between the job's end and its result."""

    async def finished(self) -> None:
        """Every job is over when its answer is there."""

    def answer_late(self, *, submit: float = 0, job: float = 0, upload: float = 0) -> None:
        self.server.delay = submit

    def echo_secrets(self) -> None:
        self.server.answer = f"401 {KEY} data:image/png;base64,{base64.b64encode(picture().blob.read()).decode()}"

    def jobs(self) -> int:
        return self.server.jobs

    def cancelled(self) -> int:
        return 0

    def uploads(self) -> int:
        return 0

    def key_leaks(self) -> int:
        return 0

    def connections(self) -> int:
        return connections_to(self.port)


class TestKeepsTheContract(ProviderContract):
    @pytest.fixture
    async def upstream(self, anyio_backend: str) -> AsyncIterator[PostboxUpstream]:
        limits = httpx2.Limits(max_keepalive_connections=0)
        with Server() as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            async with httpx2.AsyncClient(trust_env=False, limits=limits) as http:
                yield PostboxUpstream(server, server.server_port, http)
            server.shutdown()
            thread.join()
