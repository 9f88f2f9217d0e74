"""OpenAICompatible keeps the contract of all providers, against a server over real HTTP."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator

import pytest

from providers.base import Clock, Media, Provider, ProviderCall
from providers.openai_compatible import OpenAICompatible
from providers.testing import ProviderContract, RealClock
from providers.testing.kit import connections_to, picture
from tests.fakes.http import http_client
from tests.fakes.openai_server import KEY, Answer, OpenAIServer

DEAD = "http://127.0.0.1:9/v1"  # discard: nobody listens


def settings(url: str, **changes: str) -> dict[str, str]:
    return {one.name: one.default for one in OpenAICompatible.settings} | {"base_url": url, "key": KEY} | changes


class OpenAIUpstream:
    secrets = (KEY,)
    uploads_above = None
    synchronous = True

    def __init__(self, server: OpenAIServer) -> None:
        self.server = server
        self.http = http_client(keep=0)

    def provider(self, *, reachable: bool = True, clock: Clock | None = None) -> Provider:
        return OpenAICompatible(settings(self.server.url if reachable else DEAD), self.http, clock or RealClock())

    def call(self, *pictures: Media, inline: bool = False, deadline: float = float("inf")) -> ProviderCall:
        payload = {"prompt": "make it night", "image[]": list(pictures)}
        return ProviderCall("gpt-image-1", payload, "req_test", 600, deadline)

    def refuse(self) -> None:
        error = {"message": "no", "type": "invalid_request_error", "param": "prompt", "code": "invalid_value"}
        self.server.next = Answer(400, {"error": error})

    def lose_reply(self) -> None:
        self.server.next = Answer(drop=True)

    def fail_job(self) -> None:
        self.server.next = Answer(500, {"error": {"message": "broken", "type": "server_error"}})

    def lose_result(self) -> None:
        """Nothing is between the job's end and its result."""

    async def finished(self) -> None:
        """Every job is over when its answer is there."""

    def answer_late(self, *, submit: float = 0, job: float = 0, upload: float = 0) -> None:
        self.server.delay = submit

    def echo_secrets(self) -> None:
        uri = f"data:image/png;base64,{base64.b64encode(picture().blob.read()).decode()}"
        text = f"Incorrect API key provided: {KEY}; got {uri}"
        self.server.next = Answer(401, {"error": {"message": text, "type": text, "param": text, "code": text}})

    def jobs(self) -> int:
        return self.server.jobs

    def cancelled(self) -> int:
        return 0

    def uploads(self) -> int:
        return 0

    def key_leaks(self) -> int:
        return self.server.fetched_with_key

    def connections(self) -> int:
        return connections_to(self.server.port)


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


class TestKeepsTheContract(ProviderContract):
    @pytest.fixture
    async def upstream(self, server: OpenAIServer, anyio_backend: str) -> AsyncIterator[OpenAIUpstream]:
        server.jobs, server.delay, server.next = 0, 0.0, None
        upstream = OpenAIUpstream(server)
        yield upstream
        await upstream.http.aclose()
