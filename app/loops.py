"""Gateways that ask gateways: a request that comes back to where it was, or passes too many, is refused before anything
is bought.

Each gateway adds a mark to the header that its adapter for such servers passes on. A mark means one process and one
model, since to ask another model of the same gateway is no loop. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from app.errors import InvalidRequest

MOST = 8  # gateways that a request may pass: several processes of one gateway have marks of their own
_MARK = re.compile(r"[0-9a-f]{16}")


class GatewayLoop(InvalidRequest):
    """The request has been here before."""

    code = "gateway_loop"


def read_via(values: Iterable[str]) -> tuple[str, ...]:
    """The marks in a header's values, oldest first. What is no mark was not written by a gateway and is none of this
    module's business."""
    words = (word.strip() for value in values for word in value.split(","))
    return tuple(word for word in words if _MARK.fullmatch(word))


def passed(via: tuple[str, ...], process: str, model: str) -> tuple[str, ...]:
    """`via` and this process's own mark. Raises GatewayLoop."""
    mark = hashlib.sha256(f"{process} {model}".encode()).hexdigest()[:16]
    if mark in via:
        raise GatewayLoop(f"The model '{model}' leads back to itself: one of its providers asks this gateway for it.")
    if len(via) >= MOST:
        raise GatewayLoop(f"The request has passed {len(via)} gateways: '{model}' seems to lead back to itself.")
    return (*via, mark)
