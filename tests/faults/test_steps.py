"""Every fault at every step: one request by OpenAI's SDK as it comes, and what the books say of it afterwards."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate
from tests.faults.observe import Case
from tests.faults.rows import Step
from tests.faults.stand import Stand
from tests.faults.step import run
from tests.faults.table import STEPS


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.id, marks=[pytest.mark.xfail(reason=row.bug)] if row.bug else [])
        for row in STEPS
        if not row.slow
    ],
)
def test_a_fault_at_a_step(stand: Stand, upstream: SandboxServer, row: Step) -> None:
    lent: AbstractContextManager[Gate] = stand.shared()
    if row.own or row.settings:
        lent = stand.own(**row.settings)
    with lent as gate:
        stand.check()
        numbers, _ = run(gate, row)
        Case(row).saw(numbers)
        if numbers["answer"] != "200" and not row.own:  # whatever it was, it is over
            assert gate.ask("the next one").status_code == 200
