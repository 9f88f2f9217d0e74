"""The real OpenAI SDK: errors, models, streams, and the Azure client."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI

from tests.api.sdk import SMALL, edit, fetched, only, opened
from tests.conftest import KEY, MODEL, Json, Served
from tests.media.pictures import sample

NewJobs = Callable[[], list[Json]]

# ---- errors


@pytest.mark.parametrize(
    ("change", "kind", "code", "param"),
    [
        ({"model": "nope"}, openai.NotFoundError, "model_not_found", "model"),
        ({"prompt": "x" * 32_001}, openai.BadRequestError, "string_above_max_length", "prompt"),
        ({"prompt": ""}, openai.BadRequestError, "empty_string", "prompt"),
        ({"n": 0}, openai.BadRequestError, "integer_below_min_value", "n"),
        ({"n": 11}, openai.BadRequestError, "integer_above_max_value", "n"),
        ({"size": "bogus"}, openai.BadRequestError, "invalid_value", "size"),
        ({"output_format": "tiff"}, openai.BadRequestError, "invalid_value", "output_format"),
        ({"image": b"no picture"}, openai.BadRequestError, "unsupported_file_mimetype", "image"),
        ({"image": b""}, openai.BadRequestError, "invalid_image_file", "image"),
        ({"extra_body": {"cfg_scale": 99}}, openai.BadRequestError, "decimal_above_max_value", "cfg_scale"),
        ({"extra_body": {"webhook_url": "https://x.example"}}, openai.BadRequestError, "unsupported_parameter", None),
    ],
    ids=str,
)
def test_errors_are_the_sdks_own(
    client: OpenAI,
    new_jobs: NewJobs,
    change: Json,
    kind: type[openai.APIStatusError],
    code: str,
    param: str | None,
) -> None:
    with pytest.raises(kind) as caught:
        edit(client, **change)
    error = caught.value
    assert type(error) is kind
    assert error.code == code
    assert error.param == (param or next(iter(change["extra_body"])))
    assert error.type in ("invalid_request_error", "image_generation_user_error")
    assert (error.request_id or "").startswith("req_")
    assert error.response.headers["x-should-retry"] == "false"
    assert new_jobs() == []


def test_a_wrong_key_is_an_authentication_error_that_does_not_repeat_it(locked_gateway: Served) -> None:
    stranger = {"x-forwarded-for": "192.0.2.99"}
    with (
        locked_gateway.client(api_key="sk-wrong-and-secret", default_headers=stranger) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        edit(client)
    assert caught.value.code == "invalid_api_key"
    assert "sk-wrong-and-secret" not in str(caught.value.body)
    with locked_gateway.client() as client:
        assert edit(client).data


def test_what_fal_refuses_is_told_in_the_callers_own_word(client: OpenAI, script: Callable[..., None]) -> None:
    script({"on": "submit", "fault": "model_error", "args": {"type": "content_policy_violation"}})
    with pytest.raises(openai.BadRequestError) as caught:
        edit(client)
    assert caught.value.code == "content_policy_violation"
    assert caught.value.type == "image_generation_user_error"


def test_a_provider_that_breaks_is_a_502(client: OpenAI, script: Callable[..., None]) -> None:
    script({"on": "submit", "fault": "http", "args": {"status": 500}, "times": None})
    with pytest.raises(openai.InternalServerError) as caught:
        edit(client)
    assert caught.value.status_code == 502
    assert (caught.value.request_id or "").startswith("req_")


def test_a_rate_limit_says_when_to_come_back(client: OpenAI, script: Callable[..., None]) -> None:
    script({"on": "submit", "fault": "rate_limit", "args": {"retry_after": 1}, "times": None})
    with pytest.raises(openai.RateLimitError) as caught:
        edit(client)
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["retry-after"] == "1"


def test_what_was_made_is_returned_and_what_failed_is_told(client: OpenAI, script: Callable[..., None]) -> None:
    script({"on": "submit", "fault": "model_error", "args": {"type": "content_policy_violation"}})
    answer = edit(client, n=3)
    assert len(answer.data) == 2
    assert len(answer.metadata["failed"]) == 1
    assert answer.metadata["failed"][0]["code"] == "content_policy_violation"
    assert answer.metadata["cost"] == pytest.approx(2 * 0.03)


# ---- models


def test_models(client: OpenAI) -> None:
    models = {model.id: model for model in client.models.list()}
    assert MODEL in models
    assert (models[MODEL].object, type(models[MODEL].created)) == ("model", int)
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve(f"fal/{MODEL}").id == MODEL  # the SDK sends %2F
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve(MODEL + "x")
    assert caught.value.code == "model_not_found"
    assert MODEL in caught.value.message  # did you mean


def test_a_models_own_alias_and_its_provider_are_names_too(client: OpenAI) -> None:
    for name in ("qwen-image-edit-plus-2509", f"fal/{MODEL}"):
        assert edit(client, model=name).metadata["model"] == MODEL


def test_the_azure_client(locked_gateway: Served, new_jobs: NewJobs) -> None:
    """It sends `api-key`, puts the model into the path, and an api-version into the query."""
    with AzureOpenAI(azure_endpoint=locked_gateway.url, api_key=KEY, api_version="2026-01-01", max_retries=0) as client:
        assert edit(client).metadata["model"] == MODEL
        assert MODEL in [model.id for model in client.models.list()]
    only(new_jobs())


# ---- streams


def test_a_stream_gives_each_picture_as_it_is_done(client: OpenAI) -> None:
    with edit(client, n=3, stream=True, response_format="b64_json", extra_body={"seed": 5}) as stream:
        events = list(stream)
    assert [event.type for event in events] == ["image_edit.completed"] * 3
    assert sorted(event.index for event in events) == [0, 1, 2]
    pictures = {event.b64_json for event in events}
    assert len(pictures) == 3
    for event in events:
        image = opened(base64.b64decode(event.b64_json))
        assert event.size == f"{image.width}x{image.height}" == SMALL
        assert event.output_format == "png"
        assert event.created_at > 1_700_000_000
        assert event.usage.total_tokens == 0


def test_a_stream_of_links(client: OpenAI) -> None:
    with edit(client, stream=True, response_format="url") as stream:
        event = only(list(stream))
    assert opened(fetched(event.url)).size == (256, 256)
    assert "b64_json" not in event.to_dict()


def test_an_async_stream(gateway: Served) -> None:
    async def run() -> list[Any]:
        async with AsyncOpenAI(base_url=gateway.base_url, api_key="any", max_retries=0) as client:
            stream: Any = await client.images.edit(
                model=MODEL, prompt="a", image=sample("png"), stream=True, response_format="b64_json"
            )
            return [event async for event in stream]

    assert only(asyncio.run(run())).type == "image_edit.completed"


def test_an_error_inside_a_stream_raises(client: OpenAI, script: Callable[..., None]) -> None:
    script({"on": "submit", "fault": "model_error", "args": {"type": "content_policy_violation"}})
    with edit(client, stream=True) as stream, pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code == "content_policy_violation"


def test_a_picture_that_is_missing_from_a_stream_is_told_after_the_others(
    client: OpenAI, script: Callable[..., None]
) -> None:
    script({"on": "submit", "fault": "model_error", "args": {"type": "content_policy_violation"}})
    with edit(client, n=3, stream=True, response_format="b64_json") as stream:
        events = list(stream)
    assert [event.type for event in events] == ["image_edit.completed"] * 2 + ["image_edit.failed"]
    assert events[-1].code == "content_policy_violation"


def test_what_is_wrong_with_a_request_for_a_stream_is_a_plain_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        edit(client, stream=True, n=11)
