"""Child processes of ours that announce themselves: one line of JSON on their standard output once they listen.

A child ends when its standard input does, so none outlives the process that started it, however that one died.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, Any, Self

START_SECONDS = 30.0


class ChildFailed(Exception):
    """The child ended, or said nothing, before it listened."""


class Child:
    """`python -m app …` as a child. Use it as a context manager, or call `stop`."""

    def __init__(
        self, arguments: list[str], environ: Mapping[str, str] | None = None, *, stderr: IO[str] | int | None = None
    ) -> None:
        """Start it, and wait until it listens. `environ` is laid over our own. Raises ChildFailed."""
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "app", *arguments, "--announce"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **(environ or {})},
        )
        self.said: dict[str, Any] = self._announcement()

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it; returns when it has ended."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _announcement(self) -> dict[str, Any]:
        watchdog = threading.Timer(START_SECONDS, self._process.kill)
        watchdog.start()
        try:
            assert self._process.stdout is not None
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            self.stop()
            raise ChildFailed(f"the process ended before it listened (exit code {self._process.returncode})")
        said: dict[str, Any] = json.loads(line)
        return said


def announce(said: Mapping[str, Any]) -> None:
    """What a child says once it listens."""
    sys.stdout.write(json.dumps(dict(said)) + "\n")
    sys.stdout.flush()


def stop_with_parent(stop: Callable[[], None]) -> None:
    """Call `stop` when standard input ends."""

    def watch() -> None:
        # The raw descriptor: a thread that waits inside sys.stdin's lock would make the interpreter abort at its end.
        while os.read(0, 4096):
            pass
        stop()

    threading.Thread(target=watch, daemon=True, name="stop-with-parent").start()
