"""Whatever comes in, an answer comes out: random names, random bytes, and what must survive a round trip."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.api.form import FilePart, TextPart, boundary_of, read_parts
from app.api.names import nest, split
from app.api.request import parse_object
from app.config import Limits
from app.errors import GatewayError, InvalidValue
from tests.api.raw import BOUNDARY, DRY, FORM, fields, file, form, post, text
from tests.conftest import MODEL, Served

many = settings(max_examples=400, deadline=1000, suppress_health_check=[HealthCheck.too_slow])
some = settings(max_examples=120, deadline=5000, suppress_health_check=[HealthCheck.too_slow])

LIMITS = Limits(image_bytes=20_000, field_bytes=5_000, spool_bytes=1_000)
BODY = form(*fields(n="2"), text("loras[][path]", "ä"), file(type="image/png"), file("mask", filename=None))
JSON = json.dumps(
    {
        "model": MODEL,
        "prompt": "ä\u2028",
        "n": 2,
        "x": [{"a": 1.5e3}, None, True],
        "image": "data:image/png;base64,AAAA",
    }
).encode()


def outcome(call: Callable[[], Any]) -> Any:
    """What it gives, or the gateway's error. Any other exception goes on."""
    try:
        return call()
    except GatewayError as error:
        return error


# ---- names

pieces = st.sampled_from(
    ["a", "b", "image", "prompt", "[", "]", "[]", "[0]", "[1]", "[a]", "[b]", "[999]", "²", "٣", "\0", " "]
)
wild_names = st.lists(pieces, max_size=7).map("".join) | st.text(max_size=12)


@many
@given(st.lists(st.tuples(wild_names, st.sampled_from(["", "1", "x"])), max_size=8))
@example([("a[²]", "1"), ("a[٣]", "2")])
@example([("[", "1"), ("]", "1"), ("[]", "1"), ("a[[]]", "1")])
def test_random_names_nest_or_are_refused(fields: list[tuple[str, str]]) -> None:
    found = outcome(lambda: nest(fields))
    if isinstance(found, GatewayError):
        assert (type(found), found.param is None) == (InvalidValue, False)
        return
    assert set(found) == {split(name)[0] for name, _ in fields}
    texts = sorted(text for _, text in fields)
    assert sorted(leaves(found)) == texts  # nothing is lost


def leaves(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for item in value.values():
                yield from leaves(item)
        case list():
            for item in value:
                yield from leaves(item)
        case _:
            yield value


keys = st.text("abcdef_", min_size=1, max_size=4)
words = st.text("xyz 0", max_size=3)
flat = st.recursive(words, lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=3), max_leaves=4)


def alike(elements: int, shape: Any) -> Any:
    """As many objects of that shape, with texts of their own."""
    if isinstance(shape, dict):
        return [{key: alike(elements, item)[at] for key, item in shape.items()} for at in range(elements)]
    return [f"{shape}{at}" for at in range(elements)]


objects = st.builds(alike, st.integers(1, 4), st.dictionaries(keys, flat, min_size=1, max_size=3))
values = st.recursive(
    words | st.lists(words, min_size=1, max_size=3) | objects,
    lambda inner: st.dictionaries(keys, inner, min_size=1, max_size=3),
    max_leaves=5,
)


def written(name: str, value: Any, *, grouped: bool) -> list[tuple[str, str]]:
    """As the SDKs write it: Python's first keys first, Node's object by object."""
    if isinstance(value, dict):
        return [one for key, item in value.items() for one in written(f"{name}[{key}]", item, grouped=grouped)]
    if isinstance(value, list):
        each = [written(f"{name}[]", item, grouped=grouped) for item in value]
        return [one for row in (zip(*each, strict=True) if grouped else each) for one in row]
    return [(name, value)]


@pytest.mark.parametrize("grouped", [True, False], ids=["Python's", "Node's"])
@many
@given(st.dictionaries(keys, values, max_size=4))
def test_what_an_sdk_writes_is_read_back(grouped: bool, value: dict[str, Any]) -> None:
    spelled = [one for name, item in value.items() for one in written(name, item, grouped=grouped)]
    assert nest(spelled) == value


# ---- bytes


def mutated(body: bytes) -> st.SearchStrategy[bytes]:
    """The body with some of its bytes replaced, dropped, doubled or cut off."""
    crumbs = st.sampled_from(
        [
            b"",
            b"\0",
            b"\r",
            b"\n",
            b"\r\n",
            b"--",
            b'"',
            b"--" + BOUNDARY,
            b"\r\n\r\n",
            b"\xff",
            b"{",
            b"]",
            b'"a":',
            b"1e9",
        ]
    )
    edit = st.tuples(st.integers(0, len(body)), st.integers(0, 20), crumbs | st.binary(max_size=5))

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        out = body
        for at, length, new in edits:
            out = out[:at] + new + out[at + length :]
        return out

    return st.lists(edit, min_size=1, max_size=4).map(apply)


async def _pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(body), size):
        yield body[at : at + size]


def read(body: bytes, size: int, boundary: bytes = BOUNDARY) -> list[FilePart | TextPart]:
    return asyncio.run(read_parts(_pieces(body, size), boundary, LIMITS))


@many
@given(mutated(BODY), st.integers(1, 5000))
def test_a_damaged_form_is_read_or_refused(body: bytes, size: int) -> None:
    parts = outcome(lambda: read(body, size))
    assert parts.status in (400, 413) if isinstance(parts, GatewayError) else parts


@many
@given(st.binary(max_size=300), st.integers(1, 300))
def test_noise_is_no_form(body: bytes, size: int) -> None:
    with pytest.raises(GatewayError):
        read(body, size)


@many
@given(st.integers(1, 4000), st.integers(1, 4000))
def test_where_a_form_is_cut_into_pieces_makes_no_difference(one: int, other: int) -> None:
    assert [comparable(part) for part in read(BODY, one)] == [comparable(part) for part in read(BODY, other)]


def comparable(part: FilePart | TextPart) -> tuple[str, object]:
    return (part.name, part.text if isinstance(part, TextPart) else part.blob.read())


@many
@given(st.text(st.characters(max_codepoint=255), max_size=60))  # headers are latin-1
@example('multipart/form-data; boundary="')
@example("multipart/form-data; boundary*=utf-8''x")
@example("multipart/form-data; boundary*0=a; boundary*1=b")
def test_any_content_type_names_a_boundary_or_is_refused(header: str) -> None:
    for value in (header, f"multipart/form-data; boundary={header}"):
        parts = outcome(lambda value=value: read(BODY, 1000, boundary_of(value)))
        assert parts.status == 400 if isinstance(parts, GatewayError) else parts


@many
@given(mutated(JSON) | st.binary(max_size=60))
def test_damaged_json_is_read_or_refused(raw: bytes) -> None:
    value = outcome(lambda: parse_object(raw))
    assert value.code == "invalid_body" if isinstance(value, GatewayError) else isinstance(value, dict)


# ---- through the real door


@some
@given(mutated(BODY))
def test_a_damaged_form_is_answered(gateway: Served, body: bytes) -> None:
    check(post(gateway, body, FORM))


@some
@given(mutated(JSON))
def test_damaged_json_is_answered(gateway: Served, raw: bytes) -> None:
    check(post(gateway, raw, "application/json"))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
known = st.sampled_from(
    [
        "model",
        "prompt",
        "image",
        "images",
        "image_url",
        "mask",
        "n",
        "num_images",
        "size",
        "image_size",
        "aspect_ratio",
        "resolution",
        "seed",
        "cfg_scale",
        "stream",
        "output_format",
        "output_compression",
        "response_format",
        "quality",
        "x",
    ]
)


@some
@given(st.dictionaries(known, anything, max_size=4))
def test_any_value_of_any_parameter_is_answered(gateway: Served, change: dict[str, Any]) -> None:
    picture = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
    check(gateway.post({"model": MODEL, "prompt": "a", "image": picture, **change}, DRY))


def check(answer: Any) -> None:
    assert answer.status_code in (200, 400, 404, 413, 415), answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    if answer.status_code != 200:
        assert list(answer.json()["error"]) == ["message", "type", "param", "code"]
