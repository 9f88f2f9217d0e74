"""What all tests share: a sandbox for fal, real gateways in front of it, pictures.

One of each per worker and session; a gateway is a process of its own, started as an operator starts it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from openai import OpenAI

from app import children
from app.children import Child
from tests.fakes import nursery
from tests.fakes.postgres import PostgresServer, postgres_servers
from tests.fakes.sandbox import SandboxServer
from tests.media.pictures import sample

MODEL = "qwen-image-edit-2509"
HERE = Path(__file__).parent
PHOTO = HERE.parent / "app" / "samples" / "coffee.jpg"
KEY = "sk-test-0123456789"

Json = dict[str, Any]

# Files with tests that take long, each of which would keep the last worker busy alone.
LONGEST = (
    "faults/test_waits.py",
    "api/test_log_privacy.py",
    "faults/test_gateways.py",
    "faults/test_kill.py",
    "live/test_secrets.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each of the longest files goes to a worker of its own, and no two begin at once: they start many gateways.

    With --dist worksteal a worker begins with so many neighbours of the list, and helps others afterwards.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long: dict[str, list[pytest.Item]] = {name: [] for name in LONGEST}
    rest: list[pytest.Item] = []
    for item in items:
        long.get(str(item.path.relative_to(HERE)), rest).append(item)
    share = len(rest) // workers
    for number, group in enumerate(reversed(long.values()), 1):  # from the end: what was put in moves nothing behind
        place = len(long) - number
        at = place % workers * share + share * place // 10
        rest[at:at] = group
    items[:] = rest


@dataclass(frozen=True)
class Served:
    """A gateway that is running, and how to talk to it."""

    url: str
    pid: int
    http: httpx2.Client
    key: str = ""

    @property
    def base_url(self) -> str:
        """For SDKs."""
        return f"{self.url}/openai/v1"

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def client(self, **settings: Any) -> OpenAI:
        """OpenAI's SDK; it repeats nothing, so that a test sees what happens."""
        return OpenAI(
            **{"base_url": self.base_url, "api_key": self.key or "any", "max_retries": 0, "timeout": 30, **settings}
        )

    def post(self, body: Any = None, path: str = "/openai/v1/images/edits", **more: Any) -> httpx2.Response:
        """A JSON body as a dict; anything else by httpx2's own names (`data`, `files`, `content`)."""
        if body is not None:
            more["json"] = body
        return self.http.post(path, **more)

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self.http.get(path, **more)


StartGateway = Callable[..., Served]


def clean_environ(environ: dict[str, str]) -> dict[str, str]:
    """`environ`, and nothing of ours from the shell that runs the tests."""
    ours = ("IMAGEGATE_", "FAL_")
    return {name: "" for name in os.environ if name.startswith(ours)} | environ


@pytest.fixture(scope="session", autouse=True)
def quick_starts() -> Iterator[None]:
    """Gateways are forked where that can be done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children, "subprocess", nursery)
        yield
    nursery.NURSERY.close()


@pytest.fixture
def true_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the start itself."""
    monkeypatch.setattr(children, "subprocess", subprocess)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real server, for what outlives a test."""
    yield from postgres_servers()


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """The server; whatever a test does to it, the next one finds it running."""
    yield postgres_server
    postgres_server.revive()


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxServer]:
    """fal.ai, for the tests. Jobs take no time unless a script says otherwise."""
    with SandboxServer() as server:
        yield server


@pytest.fixture(scope="session")
def sandbox_environ(sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What points a gateway at the sandbox, and at no file of whoever runs the tests."""
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text("{}\n")
    fal = {f"FAL_{name.upper()}": value for name, value in sandbox.settings.items()}
    return clean_environ({**fal, "IMAGEGATE_CONFIG": str(config), "IMAGEGATE_LOG_LEVEL": "warning"})


@pytest.fixture(scope="session")
def start_gateway(sandbox_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartGateway]:
    """start_gateway(IMAGEGATE_STRICT="true") -> Served. The same settings give the same gateway again."""
    running: dict[tuple[tuple[str, str], ...], Served] = {}
    with ExitStack() as stack:

        def start(**environ: str) -> Served:
            settings = tuple(sorted(environ.items()))
            if settings not in running:
                data = {"IMAGEGATE_DATA_DIR": str(tmp_path_factory.mktemp("data"))}
                arguments = ["serve", "--host", "127.0.0.1", "--port", "0"]
                child = stack.enter_context(Child(arguments, {**sandbox_environ, **data, **environ}))
                key = environ.get("IMAGEGATE_API_KEY", "")
                http = stack.enter_context(
                    httpx2.Client(
                        base_url=child.said["url"],
                        headers={"authorization": f"Bearer {key}"} if key else {},
                        trust_env=False,
                        timeout=90,  # a busy machine takes its time over back-offs
                    )
                )
                running[settings] = Served(child.said["url"], child.pid, http, key)
            return running[settings]

        yield start


@pytest.fixture(scope="session")
def gateway(start_gateway: StartGateway) -> Served:
    """The gateway as it comes: no key, no settings."""
    return start_gateway()


@pytest.fixture(scope="session")
def locked_gateway(start_gateway: StartGateway) -> Served:
    """A gateway with an API key."""
    return start_gateway(IMAGEGATE_API_KEY=KEY)


@pytest.fixture
def client(gateway: Served) -> Iterator[OpenAI]:
    """OpenAI's SDK against the gateway."""
    with gateway.client() as client:
        yield client


@pytest.fixture
def new_jobs(sandbox: SandboxServer) -> Callable[[], list[Json]]:
    """new_jobs() -> the upstream's jobs since the test began, oldest first."""
    before = {job["request_id"] for job in sandbox.jobs()}

    def since() -> list[Json]:
        jobs = [job for job in sandbox.jobs() if job["request_id"] not in before]
        return sorted(jobs, key=lambda job: job["submitted_at"])

    return since


@pytest.fixture
def script(sandbox: SandboxServer) -> Iterator[Callable[..., None]]:
    """Rules for what fal does wrong, until the test ends."""
    yield sandbox.script
    sandbox.clear_script()


@pytest.fixture(scope="session")
def photo_path() -> Path:
    """The sample photo, a JPEG of 600x400."""
    return PHOTO


@pytest.fixture(scope="session")
def photo() -> bytes:
    """Its bytes."""
    return PHOTO.read_bytes()


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A small PNG, 64x48."""
    return sample("png")
