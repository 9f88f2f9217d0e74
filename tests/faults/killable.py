"""The gateway's command, in a process that ends itself at a named place: KILL_AT=store:after, or nowhere.

python -m tests.faults.killable serve …
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

PLACES = {
    "open": ("app.jobs", "Journal", "open"),
    "intend": ("app.jobs", "Journal", "intend"),
    "submit": ("providers.fal", "FalProvider", "submit"),
    "bind": ("app.jobs", "Journal", "bind"),
    "collect": ("providers.fal", "FalProvider", "collect"),
    "fetch": ("app.delivery", "Deliverer", "_fetch"),
    "finish": ("app.media.pool", "MediaPool", "run_owed"),
    "store": ("app.storage.local", "LocalStorage", "put"),
    "move": ("app.jobs", "Journal", "move"),
    "answer": ("app.jobs", "Journal", "answer"),
}
"""Coroutines that a request passes, in this order."""


def die() -> None:
    """As `kill -9` does it: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def deadly(work: Callable[..., Any], *, before: bool) -> Callable[..., Any]:
    """A coroutine that nobody survives."""

    @functools.wraps(work)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if before:
            die()
        result = await work(*args, **kwargs)
        die()
        return result

    return wrapper


def arm(where: str) -> None:
    """Replace the coroutine of that place. This process adopts nothing: it is to die of, or in, its own request."""
    name, _, when = where.partition(":")
    if name != "nowhere":
        assert when in ("before", "after"), where
        module, owner, method = PLACES[name]
        kind = getattr(importlib.import_module(module), owner)
        setattr(kind, method, deadly(getattr(kind, method), before=when == "before"))

    async def adopt(self: Any) -> list[Any]:
        return []

    importlib.import_module("app.jobs").Journal.adopt = adopt


if __name__ == "__main__":
    from app.__main__ import main

    arm(os.environ["KILL_AT"])
    sys.exit(main())
