"""Rows that take a list or an object: as JSON has them, and in a form as JSON text."""

from __future__ import annotations

from typing import Any

import pytest

from app.catalogue.schema import Passthrough
from app.errors import InvalidRequest, InvalidType
from app.params.values import coerce
from app.types import Given

LORAS = [{"path": "https://example.org/a.safetensors", "scale": 0.5}]


def read(kind: Any, value: Any, *, form: bool = False) -> Any:
    return coerce(Passthrough(how="passthrough", type=kind), Given("loras", value, text=form))


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize(("kind", "value"), [("list", LORAS), ("list", []), ("object", {"a": None}), ("object", {})])
def test_what_is_one_stays_as_it_is(kind: str, value: Any, form: bool) -> None:
    assert read(kind, value, form=form) == value  # a form can nest its fields: loras[0][path]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("list", ' [{"path": "https://example.org/a.safetensors", "scale": 0.5}]\n', LORAS),
        ("object", '{"a": null, "b": [1, true]}', {"a": None, "b": [1, True]}),
    ],
)
def test_a_forms_text_is_read_as_json(kind: str, text: str, value: Any) -> None:
    assert read(kind, text, form=True) == value
    with pytest.raises(InvalidType, match="but got a string instead"):
        read(kind, text)  # JSON says what it means


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("list", ""),
        ("list", "a, b"),
        ("list", "{}"),
        ("list", '"[]"'),
        ("object", "[]"),
        ("object", "7"),
        ("object", "null"),
        ("object", '{"a": NaN}'),
        ("object", '{"a": 1e999}'),
        ("object", '{"a": "\\u0000"}'),
        ("list", '["\\ud800"]'),
        ("list", "[" * 100_000),
        ("list", "[" + "9" * 10_000 + "]"),
    ],
)
def test_what_is_none_is_refused_in_the_callers_word(kind: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(kind, text, form=True)
    assert caught.value.param == "loras"
