"""A web server that callers' picture URLs lead to: pictures, redirects, and everything that goes wrong out there."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class WebServer:
    """`with WebServer({"/a.png": data}) as web: web.url, web.asked`; some paths misbehave:

    /redirect?to=…  /loop  /huge  /drip  /hang-up  /html  /gzip  /missing  /error
    """

    def __init__(self, pictures: dict[str, bytes]) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(pictures, self.asked))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(pictures: dict[str, bytes], asked: list[tuple[str, dict[str, str]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            path, _, query = self.path.partition("?")
            match path:
                case "/redirect":
                    self._say(302, headers={"Location": query.removeprefix("to=")})
                case "/loop":
                    self._say(302, headers={"Location": "/loop"})
                case "/huge":
                    self._endless()
                case "/drip":
                    self._drip()
                case "/hang-up":
                    self._say(200, pictures["/a.png"][:40], {"Content-Length": str(len(pictures["/a.png"]))})
                case "/html":
                    self._say(200, b"<!doctype html><p>no picture", {"Content-Type": "image/png"})
                case "/gzip":
                    self._say(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
                case "/error":
                    self._say(503)
                case _ if path in pictures:
                    self._say(200, pictures[path], {"Content-Type": "text/plain"})
                case _:
                    self._say(404)

        def _say(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
            self.close_connection = True
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _endless(self) -> None:
            self.close_connection = True
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(100):  # 100 MB
                    self.wfile.write(bytes(1_000_000))
            except OSError:
                return

        def _drip(self) -> None:
            self.close_connection = True
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(300):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            except OSError:
                return

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler
