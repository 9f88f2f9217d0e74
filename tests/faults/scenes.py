"""Cases that mostly wait (for a lease, a deadline, a time-out) are played at the same time, each on a stage of its own.

One test plays a group of them; each scene still has its row, and its own sandbox and gateways.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate
from tests.faults.observe import Case
from tests.faults.rows import COVERED
from tests.faults.table import ROWS


class Stage:
    """What a scene plays on."""

    def __init__(self, folder: Path, stack: ExitStack, database: Callable[[], str] | None = None) -> None:
        self._folder = folder
        self._stack = stack
        self._database = database
        self._gates = 0
        self.sandbox = stack.enter_context(SandboxServer(concurrency=200))

    def gate(self, *, killable: str = "", shift: float = 0.0, **settings: str) -> Gate:
        """A gateway, until the scene is over."""
        self._gates += 1
        folder = self._folder / f"gate{self._gates}"
        return self._stack.enter_context(Gate(self.sandbox, folder, killable=killable, shift=shift, **settings))

    def pair(self, *, shifts: tuple[float, float] = (0.0, 0.0), **settings: str) -> tuple[Gate, Gate]:
        """Two gateways on one database, with one data folder; their clocks are so many seconds wrong."""
        if self._database is not None:
            settings["database_url"] = self._database()
        one = self.gate(shift=shifts[0], **settings)
        return one, self.gate(shift=shifts[1], data_dir=str(one.data), **settings)


Play = Callable[[Stage], dict[str, Any]]


@dataclass(frozen=True)
class Scene:
    """`play` brings the numbers of its row."""

    row: str
    play: Play


class Group:
    """Scenes that are played together by the test of that name."""

    def __init__(self, test: str) -> None:
        self._test = test
        self.scenes: list[Scene] = []

    def scene(self, row: str, *also: str) -> Callable[[Play], Play]:
        """This function plays that row, and brings it its numbers; others' it has kept by itself."""

        def mark(play: Play) -> Play:
            for one in (row, *also):
                assert COVERED.setdefault(one, self._test) == self._test, f"{one} is covered twice"
            self.scenes.append(Scene(row, play))
            return play

        return mark

    def play(self, folder: Path, seconds: float = 150.0, database: Callable[[], str] | None = None) -> None:
        """All at once, `pair`s on a new `database` each. Fails with what every scene that failed has to say."""
        wrong: dict[str, str] = {}
        known: dict[str, str] = {}
        threads = [
            threading.Thread(target=_play, args=(scene, folder / scene.row, wrong, known, database), daemon=True)
            for scene in self.scenes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds)
        assert not any(thread.is_alive() for thread in threads), "a scene does not end"
        assert not wrong, "\n".join(f"{row}: {what}" for row, what in wrong.items())
        if known:
            pytest.xfail("; ".join(f"{row}: {what}" for row, what in known.items()))


def _play(
    scene: Scene, folder: Path, wrong: dict[str, str], known: dict[str, str], database: Callable[[], str] | None
) -> None:
    row = ROWS[scene.row]
    try:
        with ExitStack() as stack:
            numbers = scene.play(Stage(folder, stack, database))
        Case(row).saw(numbers)
    except Exception as error:  # noqa: BLE001 - told by the test
        told = f"{type(error).__name__}: {error}"
        (known if row.bug else wrong)[row.id] = row.bug or told
    else:
        if row.bug:
            wrong[row.id] = f"is not broken any more: its row's `bug` can go ({row.bug})"
