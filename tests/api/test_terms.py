"""The three headers that say how a request wants to be run."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from app.api.terms import read_terms
from app.errors import InvalidRequest
from app.types import Terms


def terms(*headers: tuple[str, str]) -> Terms:
    return read_terms(Headers(raw=[(name.encode(), value.encode("latin-1")) for name, value in headers]), 600)


def test_without_any_there_are_none() -> None:
    assert terms() == Terms(None, None, None)


@pytest.mark.parametrize("key", ["a", "order-17", "x" * 255, "two words", "~!@#"])
def test_a_key_is_what_it_is(key: str) -> None:
    assert terms(("idempotency-key", key)).idempotency_key == key


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "tab\there", "ü", "nul\0"])
def test_other_keys_are_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        terms(("idempotency-key", key))
    assert caught.value.param == "Idempotency-Key"


def test_two_keys_are_one_too_many() -> None:
    with pytest.raises(InvalidRequest, match="more than one"):
        terms(("idempotency-key", "a"), ("idempotency-key", "b"))


@pytest.mark.parametrize(("count", "repeats", "is_repeat"), [("0", 0, False), ("1", 1, True), ("2", 2, True)])
def test_sdks_say_how_often_they_have_tried(count: str, repeats: int, is_repeat: bool) -> None:
    found = terms(("x-stainless-retry-count", count))
    assert (found.repeats, found.is_repeat) == (repeats, is_repeat)


@pytest.mark.parametrize("count", ["", "-1", "abc", "1.5", "99999", "²"])
def test_what_is_no_count_is_no_sdks(count: str) -> None:
    assert terms(("x-stainless-retry-count", count)).repeats is None


@pytest.mark.parametrize(("text", "seconds"), [("30", 30.0), ("0.5", 0.5), ("600", 600.0), ("6e2", 600.0)])
def test_a_time_limit_in_seconds(text: str, seconds: float) -> None:
    assert terms(("x-request-timeout", text)).seconds == seconds


@pytest.mark.parametrize("text", ["", "abc", "nan", "inf", "-inf", "0", "-1", "600.1", "1e9", "30s"])
def test_other_limits_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        terms(("x-request-timeout", text))
    assert caught.value.param == "x-request-timeout"
