"""Pictures from words alone, through the same door."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import httpx2
import openai
import pytest
from openai import OpenAI
from PIL import Image

from tests.conftest import MODEL, Json, Served

WORDS = "qwen-image"
PATH = "/openai/v1/images/generations"


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_the_sdk_makes_pictures(client: OpenAI, new_jobs: Callable[[], list[Json]]) -> None:
    answer = client.images.generate(
        model=WORDS, prompt="a harbour in fog", n=3, size="512x768", response_format="b64_json", extra_body={"seed": 7}
    )
    assert answer.data
    pictures = [base64.b64decode(one.b64_json or "") for one in answer.data]
    assert [opened(picture).size for picture in pictures] == [(512, 768)] * 3
    assert len(set(pictures)) == 3
    jobs = new_jobs()
    assert {job["endpoint"] for job in jobs} == {"fal-ai/qwen-image"}
    assert sorted(job["payload"]["seed"] for job in jobs) == [7, 8, 9]


def test_a_url_format_and_size_as_everywhere(gateway: Served) -> None:
    answer = gateway.post({"model": WORDS, "prompt": "hills", "output_format": "webp"}, PATH)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["size"], body["output_format"]) == ("1024x768", "webp")
    assert body["metadata"]["executed_model"] == "fal/fal-ai/qwen-image"
    with httpx2.Client(trust_env=False) as http:
        assert opened(http.get(body["data"][0]["url"]).content).format == "WEBP"


def test_the_stream_has_its_own_words(client: OpenAI) -> None:
    events = list(client.images.generate(model=WORDS, prompt="dunes", n=2, size="256x256", stream=True))
    assert [event.type for event in events] == ["image_generation.completed"] * 2


def test_a_dry_run_buys_nothing(gateway: Served, new_jobs: Callable[[], list[Json]]) -> None:
    told = gateway.post({"model": WORDS, "prompt": "dunes", "n": 2}, f"{PATH}?dryRun=true").json()
    assert (told["estimated"], told["total_cost_micros"]) == (True, None)  # its price is not known, and that is said
    assert len(told["plan"]["calls"]) == 2
    assert new_jobs() == []


@pytest.mark.parametrize("path", [f"{PATH}/", f"/openai/deployments/{WORDS}/images/generations?api-version=1"])
def test_every_spelling_of_the_path(gateway: Served, path: str) -> None:
    answer = gateway.post({"model": WORDS, "prompt": "dunes", "size": "256x256"}, path)
    assert answer.status_code == 200, answer.text


def test_a_repeat_is_answered_once_more(gateway: Served, new_jobs: Callable[[], list[Json]]) -> None:
    body, headers = {"model": WORDS, "prompt": "dunes", "size": "256x256"}, {"idempotency-key": "words-1"}
    first, again = (gateway.post(body, PATH, headers=headers) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert len(new_jobs()) == 1


@pytest.mark.parametrize(
    ("path", "model", "says"),
    [
        (PATH, MODEL, "does not support text-to-image. Supported modes: image-edit (/images/edits)"),
        (
            "/openai/v1/images/edits",
            WORDS,
            "does not support image editing. Supported modes: text-to-image (/images/generations)",
        ),
    ],
)
def test_the_wrong_mode_is_refused_with_the_right_ones(gateway: Served, path: str, model: str, says: str) -> None:
    answer = gateway.post({"model": model, "prompt": "dunes"}, path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "unsupported_mode", "model")
    assert says in error["message"]


@pytest.mark.parametrize(
    ("extra", "param", "code"),
    [
        ({"image": "data:image/png;base64,AAAA"}, "image", "unsupported_parameter"),
        ({"mask": "data:image/png;base64,AAAA"}, "mask", "unsupported_parameter"),
        ({"prompt": ""}, "prompt", "empty_string"),
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 11}, "n", "integer_above_max_value"),
        ({"size": "5x5000"}, "size", "invalid_value"),
        ({"response_format": "png"}, "response_format", "invalid_value"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(
    gateway: Served, new_jobs: Callable[[], list[Json]], extra: Json, param: str, code: str
) -> None:
    answer = gateway.post({"model": WORDS, "prompt": "dunes", **extra}, PATH)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error
    assert new_jobs() == []


def test_openais_own_knobs_are_taken_and_noted(client: OpenAI) -> None:
    answer = client.images.generate(
        model=WORDS, prompt="dunes", size="256x256", quality="hd", style="vivid", background="opaque", user="u-1"
    )
    notes = {one["name"]: one["how"] for one in answer.model_dump()["metadata"]["parameters"]}
    assert {notes[name] for name in ("quality", "style", "background", "user")} == {"ignored"}


def test_it_is_in_the_log_and_in_the_document(gateway: Served) -> None:
    made = gateway.post({"model": WORDS, "prompt": "dunes", "size": "256x256"}, PATH).json()
    assert gateway.get(f"/v1/requests/{made['id']}").json()["model"] == WORDS
    operation = gateway.get("/openapi.json").json()["paths"][PATH]["post"]
    fields = operation["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"prompt", "n", "size", "seed", "model"} <= set(fields)
    assert not {"image", "mask"} & set(fields)


def test_what_a_model_does_is_told_by_the_list(client: OpenAI, gateway: Served) -> None:
    assert {WORDS, MODEL} <= {model.id for model in client.models.list()}
    entry = gateway.get(f"/openai/v1/models/{WORDS}").json()
    assert (entry["modes"], entry["capabilities"], entry["starting_price"]) == (["text-to-image"], ["generation"], None)


def test_a_picture_that_is_refused_is_the_same_error(client: OpenAI, script: Callable[..., None]) -> None:
    script({"on": "submit", "fault": "model_error", "args": {"type": "content_policy_violation"}})
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model=WORDS, prompt="dunes")
    assert caught.value.code == "content_policy_violation"
