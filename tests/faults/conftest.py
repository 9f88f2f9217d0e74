"""A sandbox and gateways for this folder's tests, and the row that each of them is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.sandbox import SandboxServer
from tests.faults.gate import Gate
from tests.faults.observe import Case
from tests.faults.stand import Stand
from tests.faults.table import ROWS

GROUPS = ("test_what_takes_its_time", "test_killed", "test_stopped", "test_gateways_on_one_postgresql")

OwnGate = Callable[..., Gate]


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """What cases share."""
    stand = Stand(tmp_path_factory.mktemp("faults"))
    yield stand
    stand.close()


@pytest.fixture
def upstream(stand: Stand) -> Iterator[SandboxServer]:
    """The shared sandbox, with no rules."""
    stand.sandbox.clear_script()
    yield stand.sandbox
    stand.sandbox.clear_script()
    stand.note()


@pytest.fixture
def shared(stand: Stand, upstream: SandboxServer) -> Iterator[Gate]:
    """A gateway that other cases use, too."""
    with stand.shared() as gate:
        yield gate


@pytest.fixture
def own(stand: Stand, upstream: SandboxServer) -> Iterator[OwnGate]:
    """own(drain_seconds="2") -> a gateway for this case alone; it ends with the test, however the test left it."""
    gates: list[Gate] = []

    def start(*, killable: str = "", sandbox: SandboxServer | None = None, **settings: str) -> Gate:
        gates.append(Gate(sandbox or upstream, stand.folder(), killable=killable, **settings))
        return gates[-1]

    yield start
    for gate in gates:
        gate.close()


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    """The row that the test covers."""
    return Case(ROWS[request.function.row])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a row knows to be broken is expected to fail, until it does not. What waits longest begins first."""
    groups = [item for item in items if item.name in GROUPS and item.path.is_relative_to(Path(__file__).parent)]
    items[:] = groups + [item for item in items if item not in groups]
    for item in items:
        row = ROWS.get(getattr(getattr(item, "function", None), "row", ""))
        if row is not None and row.bug:
            item.add_marker(pytest.mark.xfail(reason=row.bug, strict=True))
