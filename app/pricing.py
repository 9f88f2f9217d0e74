"""Price x Plan -> Quote before, results -> cost after. Decimal throughout; an unknown price is None, never zero."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING, Decimal

from app.catalogue.schema import Price
from app.types import Plan, Quote, Size

MICRO = Decimal("0.000001")


def quote(plan: Plan) -> Quote:
    """What the plan will cost if everything in it is made."""
    price, count = plan.offer.price, plan.delivery.count
    if price is None:
        return Quote("image", Decimal(count), Decimal(count), None, None)
    if price.per == "image":
        return _quote(price, Decimal(count), Decimal(count))
    if plan.size is None:
        return Quote("megapixel", None, None, price.amount, None, price.currency)
    each = Decimal(plan.size[0] * plan.size[1]) / price.megapixel
    return _quote(price, each * count, _billable(price, plan.size) * count)


def cost(price: Price | None, sizes: Iterable[Size | None], billable_units: Decimal | None) -> Decimal | None:
    """What was made, at the offer's price. The provider's own count of units wins where it tells one."""
    if price is None:
        return None
    if billable_units is not None:
        return (billable_units * price.amount).quantize(MICRO)
    total = Decimal(0)
    for size in sizes:
        if price.per == "image":
            total += price.amount
        elif size is None:
            return None
        else:
            total += _billable(price, size) * price.amount
    return total.quantize(MICRO)


def micros(amount: Decimal) -> int:
    """Millionths of the currency's unit."""
    return int((amount / MICRO).to_integral_value())


def _quote(price: Price, quantity: Decimal, billable: Decimal) -> Quote:
    return Quote(price.per, quantity, billable, price.amount, (billable * price.amount).quantize(MICRO), price.currency)


def _billable(price: Price, size: Size) -> Decimal:
    megapixels = Decimal(size[0] * size[1]) / price.megapixel
    return megapixels.to_integral_value(ROUND_CEILING) if price.rounding == "up" else megapixels
