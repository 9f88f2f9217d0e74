"""A gateway as a process that a test may kill, stop and start again on what it left; and the sandbox beside it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from openai import OpenAI

from app.children import Child
from tests.conftest import MODEL, Json, clean_environ
from tests.fakes import nursery
from tests.fakes.sandbox import SandboxServer
from tests.media.pictures import sample

ROOT = Path(__file__).parents[2]
EDITS = "/openai/v1/images/edits"
SIZE = "256x256"  # one billable unit: 0.03 USD
PICTURE = sample("png")

T = TypeVar("T")


def until(look: Callable[[], T], seconds: float = 10.0, *, every: float = 0.03, what: str = "it") -> T:
    """The first truth that `look` sees. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:g} s"
        time.sleep(every)
    return seen


def at_once(*calls: Callable[[], T]) -> list[T]:
    """What the calls give, each made in a thread of its own. Raises the first one's error, if any fails."""
    results: list[Any] = [None] * len(calls)

    def one(place: int, call: Callable[[], T]) -> None:
        try:
            results[place] = call()
        except BaseException as error:  # noqa: BLE001 - told to who asked
            results[place] = error

    threads = [threading.Thread(target=one, args=pair, daemon=True) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


class Gate:
    """`imagegate serve` on a folder of its own, in front of a sandbox. `killable`: as tests/faults/killable.py says."""

    def __init__(
        self,
        sandbox: SandboxServer,
        folder: Path,
        *,
        killable: str = "",
        shift: float = 0.0,
        environ: dict[str, str] | None = None,
        **settings: str,
    ) -> None:
        """`settings` are environment variables without IMAGEGATE_, in small letters; `environ` is laid over all.
        `shift`: seconds by which its machine's clock is wrong."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data = Path(settings.get("data_dir", folder / "data"))
        self.sandbox = sandbox
        self.key = settings.get("api_key", "")
        config = folder / "config.yaml"
        config.write_text("{}\n")
        ours = {f"IMAGEGATE_{name.upper()}": value for name, value in settings.items() if value}
        fal = {f"FAL_{name.upper()}": value for name, value in sandbox.settings.items()}
        fixed = {
            "IMAGEGATE_CONFIG": str(config),
            "IMAGEGATE_LOG_LEVEL": "warning",
            "IMAGEGATE_DATA_DIR": str(self.data),
            "PYTHONPATH": str(ROOT),
        }
        self.environ = clean_environ({**fal, **fixed, **ours, **(environ or {})})
        self.killable = killable
        self.shift = shift
        self.child: Child
        self.http: httpx2.Client
        self.start()

    # ---- its life

    def start(self) -> None:
        """Start it, on what an earlier process may have left."""
        with (self.folder / "log").open("a") as log:
            arguments = ["serve", "--host", "127.0.0.1", "--port", "0"]
            if self.killable:
                environ = {**self.environ, "KILL_AT": self.killable}
                self.child = TamperedChild("tests.faults.killable", arguments, environ, log)
            elif self.shift:
                environ = {**self.environ, "CLOCK_SHIFT": str(self.shift)}
                self.child = TamperedChild("tests.faults.skewed", arguments, environ, log)
            else:
                self.child = Child(arguments, self.environ, stderr=log)  # type: ignore[arg-type]
        self.url: str = self.child.said["url"]
        self.http = self.connect()

    @cached_property
    def patient(self) -> OpenAI:
        """OpenAI's SDK as it comes."""
        return self.sdk()

    def connect(self, **more: Any) -> httpx2.Client:
        """Another client of it."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx2.Client(**{"base_url": self.url, "headers": headers, "trust_env": False, "timeout": 60, **more})

    @property
    def process(self) -> subprocess.Popen[bytes]:
        return self.child._process

    def kill(self) -> None:
        """As the machine does that runs out of memory."""
        self.child.signal(signal.SIGKILL)
        self.ended()

    def terminate(self) -> None:
        """As `docker stop` does. Returns at once."""
        self.child.signal(signal.SIGTERM)

    def ended(self, seconds: float = 30) -> int:
        """Its exit code, once it has one."""
        code = self.process.wait(timeout=seconds)
        self.http.close()
        if (patient := self.__dict__.pop("patient", None)) is not None:
            patient.close()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return code

    def restart(self, **changes: str) -> None:
        """Start anew after it has ended, with other settings if there are any."""
        self.killable = ""
        self.environ |= {f"IMAGEGATE_{name.upper()}": value for name, value in changes.items()}
        self.start()

    def close(self) -> None:
        """End it, however it is."""
        if self.process.poll() is None:
            self.child.signal(signal.SIGKILL)
        self.ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- talking to it

    def sdk(self, **settings: Any) -> OpenAI:
        """OpenAI's SDK as it comes: it repeats twice, and sends no Idempotency-Key."""
        return OpenAI(**{"base_url": f"{self.url}/openai/v1", "api_key": self.key or "any", "timeout": 60, **settings})

    def ask(
        self,
        prompt: str,
        *,
        headers: dict[str, str] | None = None,
        picture: bytes = PICTURE,
        mask: bytes | None = None,
        http: httpx2.Client | None = None,
        **fields: str,
    ) -> httpx2.Response:
        """One form, sent once."""
        data = {"model": MODEL, "prompt": prompt, "size": SIZE, **fields}
        files = {"image": ("a.png", picture, "image/png")}
        if mask is not None:
            files["mask"] = ("mask.png", mask, "image/png")
        return (http or self.http).post(EDITS, data=data, files=files, headers=headers or {})

    # ---- its journal

    def records(self, **filters: str) -> list[Json]:
        """What GET /v1/requests tells, newest first."""
        found: list[Json] = []
        after = ""
        while True:
            query = {"limit": "100", **filters} | ({"after": after} if after else {})
            answer = self.http.get("/v1/requests", params=query)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["data"]
            if not page["has_more"]:
                return found
            after = page["last_id"]

    def record(self, id: str) -> Json:
        answer = self.http.get(f"/v1/requests/{id}")
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The journal's own tables, read beside the gateway."""
        with closing(sqlite3.connect(f"file:{self.data}/imagegate.db?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(sql).fetchall()

    def log(self) -> str:
        return (self.folder / "log").read_text()


class TamperedChild(Child):
    """The same command through a module of the tests."""

    def __init__(self, module: str, arguments: list[str], environ: dict[str, str], stderr: Any) -> None:
        self._process = nursery.Popen(
            [sys.executable, "-m", module, *arguments, "--announce"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **environ},
        )
        self.said: dict[str, Any] = self._announcement()


def events_of(text: str) -> Iterator[tuple[str, Json]]:
    """The events of a stream."""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith(":")]
        if len(lines) == 2:
            yield lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))
