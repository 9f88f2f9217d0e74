"""Prices: decimal, and unknown is unknown."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app.catalogue.schema import Offer, Price
from app.pricing import cost, micros, quote
from app.types import Delivery, Plan, Size

PER_IMAGE = Price(per="image", amount=Decimal("0.039"))
ROUNDED = Price(per="megapixel", amount=Decimal("0.03"), rounding="up")
EXACT = Price(per="megapixel", amount=Decimal("0.03"))


def plan(price: Price | None, size: Size | None, count: int = 1) -> Plan:
    offer = Offer(provider="fake", endpoint="x", price=price, params={})
    return Plan("m", offer, (), (), Delivery(count=count), (), size)


@pytest.mark.parametrize(
    ("price", "size", "count", "total"),
    [
        (PER_IMAGE, (4096, 4096), 3, "0.117"),
        (ROUNDED, (1024, 1024), 1, "0.03"),
        (ROUNDED, (1024, 1025), 1, "0.06"),
        (ROUNDED, (512, 512), 4, "0.12"),
        (EXACT, (512, 512), 4, "0.03"),
        (EXACT, (2048, 2048), 1, "0.12"),
    ],
)
def test_a_quote(price: Price, size: Size, count: int, total: str) -> None:
    assert quote(plan(price, size, count)).total == Decimal(total)


def test_an_unknown_price_is_unknown_and_not_zero() -> None:
    assert quote(plan(None, (1024, 1024))).total is None
    assert cost(None, [(1024, 1024)], None) is None


def test_an_unknown_size_makes_a_price_by_megapixel_unknown() -> None:
    assert quote(plan(EXACT, None)).total is None
    assert cost(EXACT, [None], None) is None


def test_what_was_made_is_what_it_costs() -> None:
    assert cost(ROUNDED, [(1024, 1024), (1025, 1024)], None) == Decimal("0.09")
    assert cost(ROUNDED, [], None) == 0
    assert cost(ROUNDED, [(1024, 1024)], Decimal("2")) == Decimal("0.06")


def test_micros_are_whole() -> None:
    assert micros(Decimal("0.03")) == 30_000
    assert micros(Decimal("0.0000015")) in (1, 2)
