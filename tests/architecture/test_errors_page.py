"""docs/errors.md has a line for each code that the gateway can answer, and says of it what its class says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import app.denials
import app.loops  # noqa: F401
from app.errors import AboveMaximum, BelowMinimum, GatewayError, ProviderFailure, error_classes

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
LINE = re.compile(r"^\| `(\w+)` \| (\d{3}) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)

Kind = type[GatewayError]


def answered() -> dict[tuple[str, int], Kind]:
    """Every code with its status, and a class that answers it."""
    found: dict[tuple[str, int], Kind] = {}
    for kind in sorted(error_classes().values(), key=lambda kind: len(kind.__mro__)):
        if kind is ProviderFailure:  # never raised itself
            continue
        codes = {kind.code}
        if kind in (BelowMinimum, AboveMaximum):
            codes = {kind("", param="x", integer=integer).code for integer in (True, False)}  # type: ignore[call-arg]
        for code in codes:
            found.setdefault((code, kind.status), kind)
    return found


def lines() -> dict[tuple[str, int], tuple[str, ...]]:
    return {(code, int(status)): tuple(rest) for code, status, *rest in LINE.findall(PAGE.read_text("utf-8"))}


def test_every_code_has_its_line_and_every_line_its_code() -> None:
    assert set(lines()) == set(answered())
    assert len(LINE.findall(PAGE.read_text("utf-8"))) == len(lines())
    assert len(lines()) > 40


@pytest.mark.parametrize(("code", "status"), sorted(answered()))
def test_a_line_says_what_the_class_says(code: str, status: int) -> None:
    kind = answered()[code, status]
    when, advice, repeat, charged = lines()[code, status]
    assert when
    assert advice
    assert repeat.split(",")[0] == ("no" if kind.should_retry is False else "yes")
    assert charged.startswith("see the message" if kind.tells_charge else "no")


def test_every_link_from_a_page_leads_somewhere() -> None:
    pages = sorted(PAGE.parent.rglob("*.md"))
    links = {(page, link) for page in pages for link in re.findall(r"\]\(([^)#:\s]+)", page.read_text("utf-8"))}
    assert links
    assert [f"{page.name}: {link}" for page, link in sorted(links) if not (page.parent / link).exists()] == []
