"""application/json as clients really write it, and as broken ones do."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.raw import DRY, EDITS, plan, post, refused
from tests.conftest import MODEL, Json, Served
from tests.media.pictures import sample

PNG = sample("png")
URI = "data:image/png;base64," + base64.b64encode(PNG).decode()
BARE = base64.b64encode(PNG).decode()
SEEN = "<picture 1: image/png, 64x48"
TYPE = "application/json"


def body(**more: Any) -> Json:
    return {"model": MODEL, "prompt": "a", "image": URI, **more}


def sent(gateway: Served, raw: bytes | str, type: str = TYPE) -> Any:
    return post(gateway, raw.encode() if isinstance(raw, str) else raw, type)


@pytest.mark.parametrize(
    "pictures",
    [
        {"image": URI},
        {"image": [URI]},
        {"image[]": [URI]},
        {"images": URI},
        {"images": [URI]},
        {"images": [{"image_url": URI}]},
        {"images": [{"image_url": {"url": URI}}]},
        {"images": [{"type": "image_url", "image_url": {"url": URI, "detail": "high"}}]},
        {"images": [{"url": URI}]},
        {"image": {"image_url": URI}},
        {"image_url": URI},
        {"image_urls": [URI]},
        {"image_url": {"url": f"  {URI}\n"}},
        {"image_base64": BARE},
        {"image_base64": [BARE]},
        {"image_base64": URI},
        {"images": [{"image_base64": BARE}]},
        {"image_base64": BARE.replace("+", "-").replace("/", "_").rstrip("=")},
    ],
    ids=lambda value: json.dumps(value)[:45],
)
def test_every_spelling_of_a_picture(gateway: Served, pictures: Json) -> None:
    answer = gateway.post({"model": MODEL, "prompt": "a", **pictures}, DRY)
    assert [one[: len(SEEN)] for one in plan(answer)["image_urls"]] == [SEEN]


def test_a_whole_edit_from_json(gateway: Served, new_jobs: Callable[[], list[Json]]) -> None:
    answer = gateway.post(body(size="64x64", images=[{"image_url": URI}]), EDITS)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPE
    assert len(new_jobs()[0]["payload"]["image_urls"]) == 2


@pytest.mark.parametrize("type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"])
def test_every_spelling_of_the_content_type(gateway: Served, type: str) -> None:
    plan(sent(gateway, json.dumps(body()), type))


def test_a_byte_order_mark_and_white_space_are_borne(gateway: Served) -> None:
    plan(sent(gateway, b"\xef\xbb\xbf \r\n" + json.dumps(body(), indent=2).encode() + b"\n\n"))


def test_null_is_absent(gateway: Served) -> None:
    nothing = dict.fromkeys(("n", "size", "seed", "mask", "quality", "stream", "response_format", "a_new_one"))
    payload = plan(gateway.post(body(**nothing), DRY))
    assert set(payload) <= {"prompt", "image_urls", "image_size", "num_images"}
    for name in ("model", "prompt", "image"):
        refused(gateway.post(body(**{name: None}), DRY), 400, "missing_required_parameter", name)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" ", id="blank"),
        pytest.param(b"\xef\xbb\xbf", id="only a mark"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b'{"model": "x"', id="cut off later"),
        pytest.param(b'{"a": 1} x', id="more behind it"),
        pytest.param(b'{"a": 1}{"a": 1}', id="two objects"),
        pytest.param(b"{'a': 1}", id="single quotes"),
        pytest.param(b'{"a": 1,}', id="trailing comma"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": -Infinity}', id="infinity"),
        pytest.param(b'{"a": "\xff"}', id="not UTF-8"),
        pytest.param('{"a": "ä"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"a": "\\ud800"}', id="lone surrogate"),
        pytest.param(b'{"a": "\n"}', id="line end in a string"),
        pytest.param(b"[" * 100_000, id="depth bomb"),
        pytest.param(b'{"a":' * 100_000, id="depth bomb of objects"),
        pytest.param(b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", id="deep and whole"),
        pytest.param(b'{"a": [' + b"[]," * 9_000_000 + b"[]]}", id="27 MB of empty lists"),
        pytest.param(json.dumps({f"x{at}": 1 for at in range(90_000)}).encode()[:-1] + b', "x0": 1}', id="many keys"),
        pytest.param(b'{"n": ' + b"9" * 5000 + b"}", id="5,000 digits"),
        pytest.param(b'{"a": [' + b"9" * 5000 + b"]}", id="5,000 digits inside"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"x"', id="a string"),
        pytest.param(b"null", id="null"),
        pytest.param(b"--x\r\n", id="a form"),
        pytest.param(b'{"": 1}', id="no name"),
        pytest.param(b'{"a\\u0000b": 1}', id="NUL in a name"),
        pytest.param(json.dumps({"x" * 300: 1}).encode(), id="a long name"),
        pytest.param(json.dumps({f"x{at}": 1 for at in range(300)}).encode(), id="too many fields"),
    ],
)
def test_a_body_that_is_no_object_is_refused(gateway: Served, raw: bytes) -> None:
    began = time.monotonic()
    answer = sent(gateway, raw)
    assert time.monotonic() - began < 2
    refused(answer, 400, "invalid_body", "x0" if b'"x0": 1}' in raw else None)


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        ('{"model": "a", "model": "b"}', "model"),
        ('{"n": 1, "n": 1}', "n"),
        ('{"model": "a", "x": {"y": [{"z": 1, "z": 2}]}}', "z"),
    ],
)
def test_a_key_given_twice_is_refused(gateway: Served, raw: str, param: str) -> None:
    refused(sent(gateway, raw), 400, "invalid_body", param)


@pytest.mark.parametrize("type", ["text/plain", "text/json", "", "application/x-www-form-urlencoded", "image/png", "x"])
def test_other_content_types_are_refused(gateway: Served, type: str) -> None:
    refused(sent(gateway, json.dumps(body()), type), 415, "unsupported_content_type")


def test_a_compressed_body_is_refused(gateway: Served) -> None:
    answer = post(gateway, json.dumps(body()).encode(), TYPE, content_encoding="gzip")
    refused(answer, 415, "unsupported_content_type")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (5, "invalid_type"),
        (True, "invalid_type"),
        ({}, "invalid_type"),
        ([[]], "invalid_value"),
        ([], "invalid_value"),
        ([None], "invalid_type"),
        ({"image_url": 5}, "invalid_type"),
        ({"image_url": URI, "x": 1}, "invalid_type"),
        ({"file_id": "file-1"}, "unsupported_parameter"),
        ("cat.png", "invalid_type"),
        (BARE, "invalid_type"),
        ("file:///etc/passwd", "invalid_type"),
        ("ftp://example.com/a.png", "invalid_type"),
        ("data:image/png;base64,!!!!", "invalid_image_file"),
        ("data:image/png;base64,", "invalid_image_file"),
        ("data:image/png", "invalid_image_url"),
        ("data:text/plain,hello", "unsupported_file_mimetype"),
        ("data:image/svg+xml,<svg/>", "unsupported_file_mimetype"),
        ("https://" + "x" * 9000, "invalid_image_url"),
        ("\0", "invalid_type"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_picture_is_refused(gateway: Served, value: object, code: str) -> None:
    refused(gateway.post(body(image=value), DRY), 400, code, "image")


def test_the_callers_own_word_is_in_the_error(gateway: Served) -> None:
    for word in ("images", "image_url", "mask"):
        refused(gateway.post(body(**{word: "cat.png"}), DRY), 400, "invalid_type", word)
