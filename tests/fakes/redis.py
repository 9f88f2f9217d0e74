"""A real Redis (or Valkey) server of the tests' own, which they may stop, kill, freeze and bring back.

with RedisServer(program) as server:
    board = Board(server.url, clock)
    server.pause()
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

PASSWORD = "s3cret-of-the-tests"
_START_SECONDS = 20.0


def redis_servers() -> Iterator[RedisServer]:
    """For a fixture: one server. Skips loudly where none is installed, and fails there in CI."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        lacking = "no redis-server is installed (apt-get install redis-server): NOT TESTED"
        if os.environ.get("CI"):
            pytest.fail(lacking)
        pytest.skip(lacking)
    with RedisServer(program) as server:
        yield server


class RedisServer:
    """One server on loopback, with a password, that keeps nothing on disk."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._folder = tempfile.TemporaryDirectory(prefix="imagegate-redis-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Return when it answers."""
        assert self._process is None
        settings = {"port": str(self.port), "bind": "127.0.0.1", "save": "", "appendonly": "no"}
        settings |= {"requirepass": PASSWORD, "dir": self._folder.name, "logfile": f"{self._folder.name}/log"}
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        # setpriv: it goes when the tests do, even if they are killed.
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", self._program, *arguments], stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError("Redis does not start:\n" + Path(self._folder.name, "log").read_text())
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            return False

    def ask(self, *words: str) -> str:
        """The first line that it answers to one command."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            for command in (("AUTH", PASSWORD), words):
                parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in command)
                connection.sendall(f"*{len(command)}\r\n{parts}".encode())
            answers = connection.makefile("rb")
            answers.readline()
            return answers.readline().decode().rstrip()

    def flush(self) -> None:
        """All that it holds is gone."""
        assert self.ask("FLUSHALL") == "+OK"

    def kill(self) -> None:
        """As the machine does that runs out of memory."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def revive(self) -> None:
        """Whatever was done to it: it runs."""
        if self._process is None:
            self.start()
        else:
            self.resume()

    def pause(self) -> None:
        """It takes connections (the kernel does), and never answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
