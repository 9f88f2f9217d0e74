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
        return Quote("image", Decimal(count), Decimal(count), price.amount, _rounded(price.amount * count))
    if plan.size is None:
        return Quote("megapixel", None, None, price.amount, None, price.currency)
    jobs = [call.count for call in plan.calls] or [count]
    exact, billable = (
        sum((made * each + plan.besides for made in jobs), Decimal(0))
        for each in (Decimal(plan.size[0] * plan.size[1]) / price.megapixel, _billable(price, plan.size))
    )
    total = sum((_megapixels(price, made * _billable(price, plan.size) + plan.besides) for made in jobs), Decimal(0))
    unit = price.amount if price.first is None else None  # two prices: neither of them alone is that of a unit
    return Quote("megapixel", exact, billable, unit, _rounded(total), price.currency)


def cost(
    price: Price | None,
    sizes: Iterable[Size | None],
    billable_units: Decimal | None,
    besides: Decimal = Decimal(0),
) -> Decimal | None:
    """What a job made, at the offer's price. The provider's own count of units wins where it tells one, and where its
    unit is what the amount is for. `besides`: megapixels that it is billed for besides its pictures."""
    if price is None:
        return None
    if billable_units is not None and price.units and price.first is None:
        return _rounded(billable_units * price.amount)
    made = list(sizes)
    if price.per == "image":
        return _rounded(price.amount * len(made))
    if not made:
        return _rounded(Decimal(0))
    known = [size for size in made if size is not None]
    if len(known) < len(made):
        return None
    return _rounded(_megapixels(price, sum((_billable(price, size) for size in known), besides)))


def micros(amount: Decimal) -> int:
    """Millionths of the currency's unit."""
    return int((amount / MICRO).to_integral_value())


def _rounded(amount: Decimal) -> Decimal:
    return amount.quantize(MICRO)


def _megapixels(price: Price, megapixels: Decimal) -> Decimal:
    """So many of one job."""
    if price.first is None:
        return megapixels * price.amount
    return min(megapixels, Decimal(1)) * price.first + max(megapixels - 1, Decimal(0)) * price.amount


def _billable(price: Price, size: Size) -> Decimal:
    megapixels = Decimal(size[0] * size[1]) / price.megapixel
    return megapixels.to_integral_value(ROUND_CEILING) if price.rounding == "up" else megapixels
