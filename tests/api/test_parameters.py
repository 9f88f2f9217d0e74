"""Values of parameters, good and bad, in both encodings: what is refused names the parameter; nothing is guessed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.api.raw import DRY, fields, file, form, plan, post, refused, text
from tests.conftest import MODEL, Served, StartGateway
from tests.media.pictures import sample

PNG = sample("png")
URI = "data:image/png;base64," + base64.b64encode(PNG).decode()


def as_json(gateway: Served, **more: Any) -> Any:
    return gateway.post({"model": MODEL, "prompt": "a", "image": URI, **more}, DRY)


def as_form(gateway: Served, **more: str) -> Any:
    return post(gateway, form(*fields(**more), file()))


BAD_JSON: list[tuple[str, Any, str]] = [
    ("model", 5, "invalid_type"),
    ("model", ["a"], "invalid_type"),
    ("model", {}, "invalid_type"),
    ("model", True, "invalid_type"),
    ("model", "a\0b", "invalid_value"),
    ("prompt", 5, "invalid_type"),
    ("prompt", ["a"], "invalid_type"),
    ("prompt", {"a": 1}, "invalid_type"),
    ("prompt", "", "empty_string"),
    ("prompt", "a\0b", "invalid_value"),
    ("prompt", "x" * 32_001, "string_above_max_length"),
    ("negative_prompt", 1, "invalid_type"),
    ("n", 0, "integer_below_min_value"),
    ("n", -1, "integer_below_min_value"),
    ("n", 11, "integer_above_max_value"),
    ("n", 10**4000, "integer_above_max_value"),
    ("n", -(10**4000), "integer_below_min_value"),
    ("n", 1.5, "invalid_type"),
    ("n", "2", "invalid_type"),
    ("n", True, "invalid_type"),
    ("n", [1], "invalid_type"),
    ("n", {}, "invalid_type"),
    ("num_images", 11, "integer_above_max_value"),
    ("num_images", 0, "integer_below_min_value"),
    ("seed", -1, "integer_below_min_value"),
    ("seed", 2**60, "integer_above_max_value"),
    ("seed", 1.5, "invalid_type"),
    ("seed", "1", "invalid_type"),
    ("cfg_scale", 20.01, "decimal_above_max_value"),
    ("cfg_scale", -0.1, "decimal_below_min_value"),
    ("cfg_scale", "4", "invalid_type"),
    ("cfg_scale", True, "invalid_type"),
    ("guidance_scale", 99, "decimal_above_max_value"),
    ("num_inference_steps", 1, "integer_below_min_value"),
    ("acceleration", "warp", "invalid_value"),
    ("acceleration", 1, "invalid_type"),
    ("enable_safety_checker", "true", "invalid_type"),
    ("enable_safety_checker", 1, "invalid_type"),
    ("stream", "true", "invalid_type"),
    ("stream", 1, "invalid_type"),
    ("size", "bogus", "invalid_value"),
    ("size", "0x0", "invalid_value"),
    ("size", "99999x1", "invalid_value"),
    ("size", "1024x", "invalid_value"),
    ("size", "-1x5", "invalid_value"),
    ("aspect_ratio", "0:1", "invalid_value"),
    ("aspect_ratio", "wide", "invalid_value"),
    ("resolution", "many", "invalid_value"),
    ("image_size", "bogus", "invalid_value"),
    ("output_format", "tiff", "invalid_value"),
    ("output_format", 1, "invalid_type"),
    ("output_compression", 101, "integer_above_max_value"),
    ("output_compression", -1, "integer_below_min_value"),
    ("output_compression", "high", "invalid_type"),
    ("response_format", "file", "invalid_value"),
    ("response_format", None, ""),
    ("markup", "x", "unsupported_parameter"),
    ("api_base", "https://evil.example", "unsupported_parameter"),
    ("webhook_url", "https://evil.example", "unsupported_parameter"),
    ("unknown", "a\0b", "invalid_value"),
    ("unknown", {"deep": ["a\0b"]}, "invalid_value"),
]


@pytest.mark.parametrize(("name", "value", "code"), BAD_JSON, ids=lambda value: str(value)[:24])
def test_bad_values_in_json(gateway: Served, name: str, value: Any, code: str) -> None:
    answer = as_json(gateway, **{name: value})
    if code:
        refused(answer, 400, code, name)
    else:
        plan(answer)


BAD_TEXT: list[tuple[str, str, str]] = [
    ("n", "0", "integer_below_min_value"),
    ("n", "-1", "integer_below_min_value"),
    ("n", "11", "integer_above_max_value"),
    ("n", "1.5", "invalid_type"),
    ("n", "abc", "invalid_type"),
    ("n", "NaN", "invalid_type"),
    ("n", "1e1", "invalid_type"),
    ("n", "9" * 5000, "invalid_type"),
    ("n", "9" * 4000, "integer_above_max_value"),
    ("seed", "true", "invalid_type"),
    ("cfg_scale", "4,5", "invalid_type"),
    ("cfg_scale", "inf", "invalid_type"),
    ("cfg_scale", "1e999", "invalid_type"),
    ("cfg_scale", "21", "decimal_above_max_value"),
    ("enable_safety_checker", "maybe", "invalid_type"),
    ("stream", "2", "invalid_type"),
    ("size", "[object Object]", "invalid_value"),
    ("prompt", "", "empty_string"),
    ("prompt", "a\0b", "invalid_value"),
    ("prompt", "ä" * 32_001, "string_above_max_length"),
    ("unknown", "a\0b", "invalid_value"),
    ("n[]", "1", "invalid_type"),
    ("n[a]", "1", "invalid_type"),
]


@pytest.mark.parametrize(("name", "value", "code"), BAD_TEXT, ids=lambda value: str(value)[:24])
def test_bad_values_in_a_form(gateway: Served, name: str, value: str, code: str) -> None:
    refused(as_form(gateway, **{name: value}), 400, code, name.partition("[")[0])


def test_what_is_missing_is_named(gateway: Served) -> None:
    refused(post(gateway, form(text("prompt", "a"), file())), 400, "missing_required_parameter", "model")
    refused(post(gateway, form(text("model", MODEL), file())), 400, "missing_required_parameter", "prompt")
    refused(post(gateway, form(*fields())), 400, "missing_required_parameter", "image")
    refused(post(gateway, form(*fields(model=""), file())), 400, "missing_required_parameter", "model")
    refused(gateway.post({}, DRY), 400, "missing_required_parameter", "model")


@pytest.mark.parametrize("word", ["null", "undefined", "None", ""])
def test_text_for_nothing_is_nothing_except_in_a_prompt(gateway: Served, word: str) -> None:
    given = dict.fromkeys(("n", "size", "seed", "cfg_scale", "stream", "response_format", "a_new_one"), word)
    payload = plan(as_form(gateway, **given))
    assert set(payload) <= {"prompt", "image_urls", "image_size", "num_images"}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("True", True), ("1", True), ("on", True), ("0", False)])
def test_booleans_in_text(gateway: Served, text: str, value: bool) -> None:
    assert plan(as_form(gateway, enable_safety_checker=text))["enable_safety_checker"] is value


def test_numbers_in_text(gateway: Served) -> None:
    payload = plan(as_form(gateway, seed=" 7 ", cfg_scale="1e-1", num_inference_steps="+5"))
    assert (payload["seed"], payload["guidance_scale"], payload["num_inference_steps"]) == (7, 0.1, 5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"cfg_scale": 3}, {"guidance_scale": 4}),
        ({"cfg_scale": 3}, {"cfg": 3}),
        ({"n": 1}, {"num_images": 2}),
        ({"size": "64x64"}, {"image_size": "64x64"}),
        ({"num_inference_steps": 5}, {"steps": 5}),
    ],
)
def test_two_words_for_one_parameter_are_refused(gateway: Served, one: Any, other: Any) -> None:
    message = refused(as_json(gateway, **one, **other), 400, "invalid_value", next(iter(other)))
    assert next(iter(one)) in message


def test_the_providers_own_words_are_read_as_ours(gateway: Served) -> None:
    answer = as_json(gateway, num_images=2, guidance_scale=3, image_size={"width": 640, "height": 480})
    body = answer.json()
    assert len(body["plan"]["calls"]) == 2
    assert body["plan"]["calls"][0]["num_images"] == 1
    assert body["plan"]["calls"][0]["guidance_scale"] == 3
    assert body["plan"]["delivery"]["size"] == "640x480"
    assert body["total_cost_micros"] > 0
    preset = as_json(gateway, image_size="landscape_16_9").json()
    assert preset["plan"]["delivery"]["size"] == "1024x576"


def test_pictures_cannot_be_smuggled_in_under_the_providers_word(gateway: Served) -> None:
    """`image_urls` is what fal calls them: it is read as `image`, under its limits."""
    refused(as_json(gateway, image_urls=[URI] * 3), 400, "too_many_images", "image")
    refused(as_json(gateway, image=None, image_urls=[URI] * 4), 400, "too_many_images", "image_urls")
    refused(as_json(gateway, image=None, image_urls="http://127.0.0.1/"), 400, "invalid_image_url", "image_urls")


def test_more_pictures_than_any_model_takes(gateway: Served) -> None:
    refused(as_json(gateway, image=[URI] * 17), 400, "too_many_images", "image")
    refused(post(gateway, form(*fields(), *[file()] * 17)), 400, "too_many_images", "image")


def test_strict_mode_refuses_what_no_row_knows(start_gateway: StartGateway) -> None:
    strict = start_gateway(IMAGEGATE_STRICT="true")
    refused(as_json(strict, a_new_one=1), 400, "unknown_parameter", "a_new_one")
    refused(as_form(strict, a_new_one="1"), 400, "unknown_parameter", "a_new_one")
    plan(as_json(strict, seed=1, size="64x64"))


@pytest.mark.parametrize("value", ["true", "1", "TRUE", "on", ""])
def test_a_dry_run_can_be_spelled(gateway: Served, value: str) -> None:
    for name in ("dryRun", "dry_run"):
        path = f"/openai/v1/images/edits?{name}={value}"
        assert gateway.post({"model": MODEL, "prompt": "a", "image": URI}, path).json()["estimated"] is True


def test_a_dry_run_that_cannot_be_understood_is_not_an_edit(gateway: Served) -> None:
    answer = gateway.post({"model": MODEL, "prompt": "a", "image": URI}, "/openai/v1/images/edits?dryRun=maybe")
    refused(answer, 400, "invalid_type", "dryRun")


def test_the_model_of_the_request_is_told_what_was_probably_meant(gateway: Served) -> None:
    message = refused(as_json(gateway, model="qwen-image-edit-2508"), 404, "model_not_found", "model")
    assert MODEL in message
    refused(as_json(gateway, model=""), 404, "model_not_found", "model")
    refused(as_json(gateway, model="\u202e" * 500), 404, "model_not_found", "model")


def test_both_encodings_compile_to_the_same_plan(gateway: Served) -> None:
    typed = as_json(gateway, n=2, seed=3, cfg_scale=2.5, size="800x600", enable_safety_checker=False)
    in_text = as_form(gateway, n="2", seed="3", cfg_scale="2.5", size="800x600", enable_safety_checker="false")
    assert typed.status_code == in_text.status_code == 200
    assert json.dumps(typed.json()) == json.dumps(in_text.json())
