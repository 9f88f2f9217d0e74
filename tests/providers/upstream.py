"""fal's sandbox in the hands of the tests: what the contract suite asks of an upstream, and what fal's own tests do."""

from __future__ import annotations

import base64
from random import Random
from typing import Any

import httpx2

from app.http1 import Http1
from providers.base import Clock, Media, Provider, ProviderCall, ProviderResult
from providers.fal import FalProvider, Patience
from providers.testing.clock import QuickClock, RealClock
from providers.testing.kit import connections_to, picture, same_as, until
from tests.fakes.fal_calls import EDIT
from tests.fakes.http import TRUSTING_NOBODY, Noting
from tests.fakes.sandbox import KEY, SandboxServer

DEAD = "http://127.0.0.1:9"  # discard: nobody listens
SMALL = {"width": 64, "height": 48}


class FalUpstream:
    """The sandbox, as the contract suite and the sentences below want it. Keeps every request that was sent."""

    secrets = (KEY,)
    uploads_above = 2_000_000
    synchronous = False

    def __init__(self, sandbox: SandboxServer) -> None:
        self.sandbox = sandbox
        # every connection ends with its answer, so that one left open is one forgotten
        self.http = Noting(Http1(TRUSTING_NOBODY, keep=0))
        self.sent = self.http.sent
        self.clock = RealClock()

    def provider(self, *, reachable: bool = True, clock: Clock | None = None, **changes: Any) -> FalProvider:
        settings = {"label": "fal.ai", **self.sandbox.settings}
        if not reachable:
            settings |= {"queue_url": f"{DEAD}/queue", "rest_url": f"{DEAD}/rest", "api_url": f"{DEAD}/api"}
        patience = changes.pop("patience", Patience())
        random = changes.pop("random", Random(7))
        return FalProvider({**settings, **changes}, self.http, clock or self.clock, patience, random)

    def call(
        self,
        *pictures: Media,
        inline: bool = False,
        deadline: float = float("inf"),
        endpoint: str = EDIT,
        **fields: Any,
    ) -> ProviderCall:
        payload = {"prompt": "make it night", "image_urls": list(pictures), "image_size": SMALL, **fields}
        if inline:
            payload["sync_mode"] = True
        return ProviderCall(endpoint, payload, "req_test", 600, deadline)

    def on(self, point: str, fault: str, *, times: int | None = 1, after: int = 0, **arguments: Any) -> None:
        self.sandbox.script({"on": point, "fault": fault, "args": arguments, "times": times, "after": after})

    def refuse(self) -> None:
        self.on("submit", "http", status=422, body={"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "x"}]})

    def lose_reply(self) -> None:
        self.on("submit", "drop_after")

    def fail_job(self) -> None:
        self.on("submit", "model_error", type="image_load_error")

    def lose_result(self) -> None:
        self.on("submit", "lose_result")

    def answer_late(self, *, submit: float = 0, job: float = 0, upload: float = 0) -> None:
        for point, fault, seconds in (
            ("submit", "delay", submit),
            ("submit", "run_for", job),
            ("put", "delay", upload),
        ):
            if seconds:
                self.on(point, fault, seconds=seconds)

    def echo_secrets(self) -> None:
        uri = f"data:image/png;base64,{base64.b64encode(picture().blob.read()).decode()}"
        text = f"Could not load image from url: {uri} for Key {KEY} {uri[22:]}"
        detail = [{"loc": ["body", "image_urls", 0], "msg": text, "type": "odd", "input": uri, "ctx": {"given": uri}}]
        self.on("submit", "http", status=422, body={"detail": detail})

    def jobs(self) -> int:
        return int(self.sandbox.totals()["submitted"])

    def cancelled(self) -> int:
        return int(self.sandbox.totals()["cancelled"])

    def uploads(self) -> int:
        return int(self.sandbox.books()["uploads"])

    def key_leaks(self) -> int:
        return int(self.sandbox.books()["key_leaks"])

    def connections(self) -> int:
        return connections_to(self.sandbox.port)

    def asked(self, ending: str, method: str = "GET") -> int:
        """Requests whose path ends so."""
        return sum(one.method == method and one.url.path.endswith(ending) for one in self.sent)

    async def finished(self) -> None:
        def states() -> set[str]:
            return {job["state"] for job in self.sandbox.jobs()}

        assert await same_as(states, {"COMPLETED"}, 10)

    async def edit(self, provider: Provider | None = None, *, seconds: float = 10, **fields: Any) -> ProviderResult:
        provider = provider or self.provider()
        return await provider.collect(await provider.submit(self.call(picture(), **fields)), until(seconds))

    async def quick_edit(self, **fields: Any) -> ProviderResult:
        """The same, but pauses take a tenth of their time; there are ten true seconds for it, too."""
        clock = QuickClock(10)
        provider = self.provider(clock=clock)
        ticket = await provider.submit(self.call(picture(), **fields))
        return await provider.collect(ticket, clock.monotonic() + 100)


def on_fals_own_names(handler: Any, clock: Clock) -> tuple[FalProvider, httpx2.AsyncClient]:
    """The adapter as an operator gets it, with `handler` in the place of all hosts: what the sandbox cannot be."""
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(handler), verify=False)
    settings = {setting.name: setting.default for setting in FalProvider.settings} | {"key": KEY}
    return FalProvider(settings, http, clock, random=Random(7)), http
