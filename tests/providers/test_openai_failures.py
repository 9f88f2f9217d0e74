"""What servers with OpenAI's API say when they fail, and what it means: for the caller, for the books, for a repeat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from providers.base import Fault, Media, ProviderCall, ProviderError
from providers.openai_compatible import OpenAICompatible
from providers.testing import RealClock
from providers.testing.kit import failure_of, picture
from tests.fakes.http import http_client
from tests.fakes.openai_server import Answer, OpenAIServer
from tests.providers.test_openai_contract import settings

pytestmark = pytest.mark.anyio

USER, INVALID, SERVER = "image_generation_user_error", "invalid_request_error", "server_error"


def error(status: int, code: str | None, type: str = INVALID, param: str | None = None, **headers: str) -> Answer:
    body = {"error": {"message": "words", "type": type, "param": param, "code": code}}
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
async def ask(server: OpenAIServer, anyio_backend: str) -> AsyncIterator[Any]:
    async with http_client(keep=0) as http:

        async def ask(*pictures: Media, payload: dict[str, Any] | None = None, **changes: str) -> Any:
            adapter = OpenAICompatible(settings(server.url, **changes), http, RealClock())
            sent = {"prompt": "night", **(payload or {}), **({"image": list(pictures)} if pictures else {})}
            return await adapter.submit(ProviderCall("gpt-image-2", sent, "req_test"))

        yield ask


@pytest.mark.parametrize(
    ("answer", "fault", "field"),
    [
        (error(400, "invalid_value", USER, "size"), Fault.INVALID, "size"),
        (error(400, "invalid_image_file", USER), Fault.INVALID, None),
        (error(400, "unknown_parameter", INVALID, "seed"), Fault.INVALID, "seed"),
        (
            Answer(422, {"detail": [{"loc": ["body", "size"], "msg": "no", "type": "value_error"}]}),
            Fault.INVALID,
            "size",
        ),
        (Answer(400, {"detail": "At most 4 images"}), Fault.INVALID, None),
        (error(400, "moderation_blocked", USER), Fault.REFUSED, None),
        (error(400, "content_policy_violation"), Fault.REFUSED, None),
        (error(400, "invalid_value", USER, "model"), Fault.MISCONFIGURED, None),
        (error(400, "billing_hard_limit_reached"), Fault.UNAUTHORIZED, None),
        (error(429, "insufficient_quota", "insufficient_quota"), Fault.UNAUTHORIZED, None),
        (error(429, "rate_limit_exceeded", "input-images"), Fault.RATE_LIMITED, None),
        (Answer(404, text="nothing here"), Fault.MISCONFIGURED, None),
        (Answer(503, {"error": "no room"}), Fault.UNAVAILABLE, None),
    ],
)
async def test_a_request_that_was_turned_away_made_no_job(
    server: OpenAIServer, ask: Any, answer: Answer, fault: Fault, field: str | None
) -> None:
    server.next = answer
    failure: ProviderError = await failure_of(ask(picture()))
    assert (failure.fault, failure.field) == (fault, field)
    assert (failure.accepted, failure.charged) == (False, False)
    assert "words" not in failure.message + failure.detail


@pytest.mark.parametrize(
    ("answer", "accepted", "charged"),
    [
        (error(500, None, SERVER), True, False),
        (Answer(500, {"detail": "CUDA"}), True, False),
        (Answer(502, text="<html>"), None, None),
        (Answer(504, text="<html>"), None, None),
        (Answer(408, text="<html>"), None, None),
        (Answer(499, text=""), None, None),
        (error(502, "upstream_ambiguous", SERVER), None, None),
        (error(504, "provider_timeout", SERVER), None, None),
        (error(502, "provider_bad_response", SERVER, x_imagegate_cost="0.03"), True, True),
        (error(502, "all_providers_failed", SERVER, x_imagegate_cost="0"), True, False),
        (error(503, "provider_unavailable", SERVER), False, False),
        (error(400, "content_policy_violation", USER, x_imagegate_cost="0.03"), True, True),
        (error(400, "content_policy_violation", USER), None, None),
    ],
)
async def test_what_a_failure_cost_is_known_only_if_the_server_said_so(
    server: OpenAIServer, ask: Any, answer: Answer, accepted: bool | None, charged: bool | None
) -> None:
    server.next = answer
    failure: ProviderError = await failure_of(ask(picture()))
    assert (failure.accepted, failure.charged) == (accepted, charged)


async def test_words_alone_go_to_generations_as_json(server: OpenAIServer, ask: Any) -> None:
    ticket = await ask(payload={"size": "1024x1024", "n": 1})
    seen = server.requests[-1]
    assert (seen.path, seen.headers["content-type"]) == ("/v1/images/generations", "application/json")
    assert seen.fields == {"prompt": "night", "size": "1024x1024", "n": 1, "model": "gpt-image-2"}
    assert ticket.result.images[0].data.startswith(b"\x89PNG")


async def test_pictures_may_travel_as_data_uris_in_json(server: OpenAIServer, ask: Any) -> None:
    await ask(picture(), edits="data_uri")
    seen = server.requests[-1]
    assert seen.path == "/v1/images/generations"
    assert seen.fields["image"][0].startswith("data:image/png;base64,")
