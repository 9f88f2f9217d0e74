"""One sandbox and a few gateways in front of it that many cases share, as long as they leave them clean."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate

AT_A_TIME = 3  # shared gateways: each has its own budget of retries, and ten retries in ten seconds are soon spent


class Stand:
    """One for each worker of the tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self.sandbox = self._stack.enter_context(SandboxServer(concurrency=200))
        self._numbers = itertools.count(1)
        self._shared: list[Gate] = []
        self._turn = 0
        self._known = 0  # jobs of the books when the last case ended

    def close(self) -> None:
        for gate in self._shared:
            gate.close()
        self._stack.close()

    def folder(self) -> Path:
        """A new one."""
        return self._folder / f"gate{next(self._numbers)}"

    @contextmanager
    def own(self, *, killable: str = "", **settings: str) -> Iterator[Gate]:
        """A gateway for one case."""
        with Gate(self.sandbox, self.folder(), killable=killable, **settings) as gate:
            yield gate

    @contextmanager
    def shared(self) -> Iterator[Gate]:
        """A gateway that has nothing left to do. It is thrown away if the case leaves it with something, or ill."""
        if len(self._shared) < AT_A_TIME:
            self._shared.append(Gate(self.sandbox, self.folder()))
        self._turn = (self._turn + 1) % len(self._shared)
        gate = self._shared[self._turn]
        clean = False
        try:
            yield gate
            clean = self._is_clean(gate)
        finally:
            if not clean:
                self._shared.remove(gate)
                gate.close()

    def _is_clean(self, gate: Gate) -> bool:
        # Who is looked for in the list of jobs disturbs nobody; who polls a job would take the next case's faults.
        lost = [record for state in ("lost", "cancelling", "submitted") for record in gate.records(state=state)]
        return not lost and gate.http.get("/readyz").json()["status"] == "ready"

    def check(self) -> None:
        """Nobody has bought anything since the last case ended."""
        assert self.sandbox.totals()["submitted"] == self._known, "something was bought between two cases"

    def note(self) -> None:
        """The case has ended."""
        self._known = self.sandbox.totals()["submitted"]
