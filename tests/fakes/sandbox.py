"""Start the fal sandbox on a free loopback port, in a thread of this process, and talk to its control routes.

with SandboxServer() as sandbox:
    sandbox.script({"on": "status", "fault": "http", "args": {"status": 500}})
    ... point a client at sandbox.url + "/queue" ...
    assert sandbox.books()["totals"]["submitted"] == 1
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2
import uvicorn

from providers.fal_sandbox import SANDBOX
from providers.fal_sandbox.options import Options
from providers.fal_sandbox.server import create_app

KEY = "sandbox:sandbox"


class SandboxServer:
    """A real HTTP server with a sandbox. Give any field of `Options` by name; jobs take no time unless told otherwise.

    `certificate` and `private_key` (PEM files) make it serve https.
    """

    def __init__(
        self,
        *,
        schema_dirs: Sequence[Path] = (),
        certificate: Path | None = None,
        private_key: Path | None = None,
        **options: Any,
    ) -> None:
        self.options = Options(**{"run_seconds": 0.0, **options})
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                create_app(self.options, schema_dirs=schema_dirs),
                log_level="critical",
                lifespan="on",
                # a stuck job must not hold up the end of a test
                timeout_graceful_shutdown=1,
                # the control client must not find its connection closed just as it sends
                timeout_keep_alive=600,
                ssl_certfile=str(certificate) if certificate else None,
                ssl_keyfile=str(private_key) if private_key else None,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="fal sandbox", daemon=True
        )
        self._control = httpx2.Client(base_url=self.url + "/sandbox", trust_env=False, verify=False, timeout=10)

    def __enter__(self) -> SandboxServer:
        self._thread.start()
        limit = time.monotonic() + 10
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > limit:
                raise RuntimeError("the sandbox did not start")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(httpx2.HTTPError):
            self.reset()  # whoever still waits for a job is answered now
        self._control.close()
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    @property
    def settings(self) -> dict[str, str]:
        """What the fal provider must be configured with to reach this sandbox."""
        return SANDBOX.settings(self.url)

    def books(self) -> dict[str, Any]:
        return self._json("GET", "/books")

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.books()["jobs"])

    def totals(self) -> dict[str, Any]:
        return dict(self.books()["totals"])

    def script(self, *rules: dict[str, Any]) -> None:
        """Append rules: script({"on": "submit", "fault": "drop_after"}, ...)."""
        self._json("POST", "/script", list(rules))

    def rules(self) -> list[dict[str, Any]]:
        """The script as it stands, with how often each rule has struck."""
        return list(self._json("GET", "/script"))

    def clear_script(self) -> None:
        self._json("DELETE", "/script")

    def set_keys(self, *keys: str) -> None:
        """The account's keys from now on; none: every well-formed one is taken."""
        self._json("PUT", "/keys", list(keys))

    def advance(self, seconds: float) -> None:
        """Move the clock that results, files and tokens expire by."""
        self._json("POST", "/clock", {"advance": seconds})

    def reset(self) -> None:
        """Forget jobs, files, books and faults."""
        self._json("POST", "/reset")

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._control.request(method, path, json=body)
        if answer.status_code != 200:
            raise ValueError(f"{method} /sandbox{path}: {answer.status_code} {answer.text}")
        return answer.json()
